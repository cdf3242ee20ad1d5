"""What watches a run of `gipo fit`: figures, curves, loggers, the last checkpoint, and the folder of all that."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Callbacks by the names that version 0.1 wrote into the configuration of a run: `gipo.callbacks.Curves`."""
    if name in ("CollectionMetrics", "Curves", "KeepConfig", "RunProgress"):
        return getattr(importlib.import_module("gipo.callbacks.reporting"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
