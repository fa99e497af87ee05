"""Names of a room that are imported when they are asked for: importing a room costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(room: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a room (its ``__name__``) that finds each name in a module.

    ``modules``: name -> where it is defined, below ``shared``: "compression.student".
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"shared.{modules[name]}"), name)

    return find
