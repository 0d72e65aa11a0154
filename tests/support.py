"""What tests of several packages share."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import yaml

from schemas.system import spec_path


def unique(prefix: str = "test") -> str:
    """A system name that no other test has: topics on the shared broker are told apart by it."""
    return f"{prefix}{uuid4().hex[:10]}"


def shipped_text(system: str, /, **fields: Any) -> str:
    """The YAML of a shipped spec with some of its top fields replaced; nested ones are merged."""
    document = yaml.safe_load(spec_path(system).read_text())
    for name, value in fields.items():
        merge = isinstance(value, dict) and isinstance(document.get(name), dict)
        document[name] = {**document[name], **value} if merge else value
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
