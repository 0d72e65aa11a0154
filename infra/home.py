"""Where Rehearse keeps what it writes on this machine."""

import os
from pathlib import Path
from typing import Final

CATALOG: Final = "REHEARSE_CATALOG"  # environment: the URL of a catalog that machines share


def home_folder() -> Path:
    """`$REHEARSE_HOME`, else `./.rehearse`; it may not exist yet."""
    return Path(os.environ.get("REHEARSE_HOME") or ".rehearse").expanduser().resolve()


def home_bundles() -> Path:
    """The folder of the bundles that were trained or released here; it may not exist."""
    return home_folder() / "bundles"


def default_catalog() -> str:
    """The catalog's URL: `$REHEARSE_CATALOG`, else SQLite in the home folder, not made yet."""
    return os.environ.get(CATALOG) or f"sqlite:///{home_folder() / 'catalog.sqlite'}"
