"""Where Rehearse keeps what it writes on this machine."""

import os
from pathlib import Path


def home_folder() -> Path:
    """`$REHEARSE_HOME`, else `./.rehearse`; it may not exist yet."""
    return Path(os.environ.get("REHEARSE_HOME") or ".rehearse").expanduser().resolve()
