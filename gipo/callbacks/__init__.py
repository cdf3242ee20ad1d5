"""What watches a run of `gipo fit`: figures, curves, loggers, the last checkpoint, and the folder of all that."""

import importlib
from typing import Any

MODULES = dict.fromkeys(("CollectionMetrics", "Curves", "RunProgress"), "reporting") | {"KeepConfig": "kept_config"}


def __getattr__(name: str) -> Any:
    """Callbacks by the names that version 0.1 wrote into the configuration of a run: `gipo.callbacks.Curves`."""
    if name in MODULES:
        return getattr(importlib.import_module(f"gipo.callbacks.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
