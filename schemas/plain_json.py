"""Results as one line of JSON: what JSON has no number for is null."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_line(result: Any) -> str:
    """`result` as JSON that every reader takes: NaN and infinities, which it has no word for, null.

    NumPy's values and arrays become numbers and lists; what is of no kind of JSON, its text.
    """
    return json.dumps(_plain(result), allow_nan=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's
        value = value.tolist()
    if isinstance(value, float):  # also where it is of a kind of its own
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return str(value)
