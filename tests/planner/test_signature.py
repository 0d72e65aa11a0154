"""What a file of keys may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.signature import SignatureError, check_signature, make_key


def test_a_file_of_keys_is_bounded(tmp_path: Path) -> None:
    """Keys at the end of a larger file would be found if it were read."""
    public = make_key(tmp_path / "me.key")
    keys = tmp_path / "keys"
    keys.write_bytes(b"#" * (1 << 16) + b"\n" + public.read_bytes())
    with pytest.raises(SignatureError, match="larger than 65536 bytes"):
        check_signature(b"manifest", b"signature", keys)
