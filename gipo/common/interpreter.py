"""What is asked of the interpreter: no import on the off chance, no garbage collection where there is no garbage.

And how many cores the system lets it use.
"""

import contextlib
import gc
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

# Lightning and TorchRL import these, where they are installed, for metrics of texts and sounds, plots and collectors
# that a run has no use for: a third of its start-up. Who needs one, in a run too, imports it as ever.
UNUSED = ("matplotlib", "scipy", "transformers")
UNUSED_AND_REFUSED = ("ray",)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def without(packages: Sequence[str], refused: Sequence[str] = ()) -> Iterator[None]:
    """Have what is imported inside find these packages not installed, so that it does not import them in case.

    Args:
        packages: not found by who looks for them before an import; the import itself works.
        refused: not found by an `import` either.
    """
    find_spec, version = importlib.util.find_spec, importlib.metadata.version
    absent = {*packages, *refused}
    stopped = [name for name in refused if name not in sys.modules]

    def find_other_spec(name: str, package: str | None = None) -> Any:
        return None if name in absent else find_spec(name, package)

    def version_of_other(distribution_name: str) -> str:
        if distribution_name in absent:
            raise importlib.metadata.PackageNotFoundError(distribution_name)
        return version(distribution_name)

    importlib.util.find_spec, importlib.metadata.version = find_other_spec, version_of_other
    sys.modules.update(dict.fromkeys(stopped))  # type: ignore[arg-type] # None: an import of it raises
    try:
        yield
    finally:
        absent.clear()  # some keep the functions
        importlib.util.find_spec, importlib.metadata.version = find_spec, version
        for name in stopped:
            del sys.modules[name]


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage within: parsing makes millions of objects and no cycles, and looking would triple its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection while importing: hardly anything becomes garbage, and looking for it takes a fifth of it.

    What was imported is not looked through later either.
    """
    try:
        with no_garbage_collection():
            yield
    finally:
        gc.freeze()


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """How Lightning, TorchRL and what uses them are imported: without what no run of ours uses, and uncollected."""
    with uncollected(), without(UNUSED, UNUSED_AND_REFUSED):
        yield
