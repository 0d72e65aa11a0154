"""What tests of several packages share."""

from __future__ import annotations

from uuid import uuid4


def unique(prefix: str = "test") -> str:
    """A system name that no other test has: topics on the shared broker are told apart by it."""
    return f"{prefix}{uuid4().hex[:10]}"
