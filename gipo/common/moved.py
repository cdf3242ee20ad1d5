"""Modules that users name and that have moved: what was written for version 0.1 goes on working.

A configuration, a script or a checkpoint that names a module of MOVED gets the module itself from its new place, and a
DeprecationWarning says where that is.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

MOVED = {
    "gipo.diagnostics": "gipo.learning.diagnostics",
    "gipo.ending": "gipo.callbacks.last_checkpoint",
    "gipo.errors": "gipo.common.errors",
    "gipo.lineage": "gipo.commands.lineage",
    "gipo.loggers": "gipo.callbacks.loggers",
    "gipo.metrics": "gipo.learning.metrics",
    "gipo.strategies": "gipo.distributed.strategies",
    "gipo.studies": "gipo.commands.studies",
    "gipo.together": "gipo.distributed.failure",
    "datamodules.libero": "datamodules.envs.libero",
    "datamodules.simulation": "datamodules.envs.simulation",
    "deploy.errors": "gipo.common.errors",
    "deploy.manifest": "deploy.runtime.manifest",
    "robots.errors": "gipo.common.errors",
    "robots.gym": "robots.drivers.gym",
    "robots.lerobot": "robots.drivers.lerobot",
    "robots.options": "robots.session.options",
    "robots.prompt": "robots.session.prompt",
    "robots.sim": "robots.drivers.sim",
}


def new_name(name: str) -> str | None:
    """Where a module, or one inside of a package that has moved, is now; None where it has not moved."""
    for old, new in MOVED.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return None


class _Alias(InspectLoader):
    """Gives the moved module itself, under its old name too."""

    def __init__(self, new: str):
        self.new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        warnings.warn(f"{spec.name} is {self.new} now", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(self.new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has set that of the old name

    def is_package(self, fullname: str) -> bool:
        spec = importlib.util.find_spec(self.new)
        return spec is not None and spec.submodule_search_locations is not None

    def get_source(self, fullname: str) -> None:
        return None

    def get_code(self, fullname: str) -> CodeType | None:  # of `python -m`
        spec = importlib.util.find_spec(self.new)
        assert spec is not None
        assert isinstance(spec.loader, InspectLoader)
        return spec.loader.get_code(self.new)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = new_name(fullname)
        if new is None or importlib.util.find_spec(new) is None:
            return None
        loader = _Alias(new)
        return ModuleSpec(fullname, loader, is_package=loader.is_package(fullname))


def install() -> None:
    """Have old names found. It is done once, by the packages that they are of."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())  # before the folder of a package finds its modules under the old name
