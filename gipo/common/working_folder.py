"""The working folder as a place of modules: what is a user's is found there, and hides nothing that is installed."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gipo.common.errors import UserError

PACKAGES = ("gipo", "datamodules", "robots", "deploy")  # that this project consists of
ROOT = Path(__file__).resolve().parents[2]  # where they all are, installed or checked out


@contextlib.contextmanager
def searched_last() -> Iterator[None]:
    """Have modules of the working folder found inside, after all that is installed.

    Python has a console script find none there, and `python -m` find them first.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was deleted
        here = ""
    added = bool(here) and not {"", here} & set(sys.path)
    if added:
        sys.path.append(here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def refuse_shadows() -> None:
    """Refuse another package of the name of one of ours, which would be imported in its place.

    Raises:
        UserError: naming the folder, the package, and the way out.
    """
    for package in PACKAGES:
        places = _places(package)
        if places and not any(place == ROOT / package for place in places):
            raise UserError(
                f"{places[0]} hides the package {package!r} that gipo consists of, because its folder comes first in "
                "PYTHONPATH; rename it, or leave its folder out of PYTHONPATH (modules of the working folder are found "
                "without)"
            )


def shadowing(known: set[str]) -> str | None:
    """What to say where a module of the working folder was imported under a `known` name of another package."""
    with contextlib.suppress(OSError):
        here = Path.cwd()
        for name in known & set(sys.modules):
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file) in (here / f"{name}.py", here / name / "__init__.py"):
                way_out = "rename it, or leave its folder out of PYTHONPATH"
                return f"{file} hides the module {name!r} that gipo needs; {way_out}"
    return None


def _places(package: str) -> list[Path]:
    """The folders of a package that an import would take, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # it is being imported
        return []
    return [] if spec is None else [Path(place).resolve() for place in spec.submodule_search_locations or ()]
