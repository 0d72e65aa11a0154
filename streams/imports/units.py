"""From the unit of a log to that of a spec, by pint; loaded only where the two differ."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

INSTALL = "python -m pip install 'rehearse[import]'"


class UnitError(ValueError):
    """Units that cannot be converted; the message says the remedy."""


class LibraryError(RuntimeError):
    """A library that reading a format needs; the message says how to install it."""


def library(name: str, what: str) -> ModuleType:
    """The module `name`, which reading `what` needs. Raises `LibraryError`."""
    try:
        return import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise LibraryError(
            f"{what} needs the package that has {missing!r}, which is not installed here: {INSTALL}"
        ) from error


@lru_cache(maxsize=1)
def _registry() -> Any:
    return library("pint", "converting units").UnitRegistry()


def conversion(given: str, wanted: str) -> tuple[float, float]:
    """(scale, offset): value × scale + offset is in unit `wanted`.

    Raises:
        UnitError: one of them is no unit that is known, or they are of different kinds.
        LibraryError: pint is not there.
    """
    if given == wanted:
        return 1.0, 0.0
    registry = _registry()
    try:
        zero = float(registry.Quantity(0.0, given).to(wanted).magnitude)
        one = float(registry.Quantity(1.0, given).to(wanted).magnitude)
    except Exception as error:  # pint raises many kinds, some of them of its parser
        raise UnitError(
            f"{given!r} does not convert to the spec's {wanted!r} ({error}); correct it, or give "
            "'scale' (and 'offset') instead"
        ) from error
    return one - zero, zero
