"""Stale robot data of any mix of sources, verified, audited, and converted once to a memory-mapped store.

Workers import modules of this package and must not load torch; so the parts that need it load when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from datamodules.ingest.interface import Interface
from datamodules.ingest.metadata import AuditFacts, Facts, SourceFacts
from datamodules.ingest.options import IngestOptions

if TYPE_CHECKING:
    from datamodules.ingest.pipeline import ingest
    from datamodules.ingest.store import Store, load_store

__all__ = ["AuditFacts", "Facts", "IngestOptions", "Interface", "SourceFacts", "Store", "ingest", "load_store"]


def __getattr__(name: str) -> Any:
    late = {"ingest": "pipeline", "Store": "store", "load_store": "store"}
    if name in late:
        return getattr(import_module(f"{__name__}.{late[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
