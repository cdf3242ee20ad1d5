"""What must be known of the command line before it can be parsed: shipped configurations, and the data module."""

import pydoc
from importlib import resources
from inspect import isabstract
from pathlib import Path
from typing import Any

import yaml

from datamodules.base import PolicyDataModule
from datamodules.offline import OfflineDataModule
from datamodules.online import OnlineDataModule
from gipo.errors import GipoError, nearest

DATA_MODULES = {module.__name__: module for module in (OnlineDataModule, OfflineDataModule)}


def shipped_configs() -> dict[str, Path]:
    """The configuration files that come with the package, by name."""
    folder = Path(str(resources.files("gipo"))) / "configs"
    return {path.name: path for path in sorted(folder.glob("*.yaml"))}


def with_shipped_configs(args: list[str]) -> list[str]:
    """Replace the value of --config by the path of the shipped file of that name, unless such a file lies here."""
    shipped = shipped_configs()
    found = []
    for index, arg in enumerate(args):
        name = _config_name(args, index)
        if name is not None and not Path(name).exists():
            if name not in shipped:
                raise GipoError(f"no configuration file {name!r}, here or shipped. Shipped: {nearest(name, shipped)}")
            arg = arg.removesuffix(name) + str(shipped[name])
        found.append(arg)
    return found


def data_module(args: list[str]) -> type[PolicyDataModule]:
    """The data module that arguments or configurations name; it must be known before its options can be parsed.

    Raises:
        GipoError: when there is no such class, or it is none of ours.
    """
    chosen = OnlineDataModule.__name__
    for index, arg in enumerate(args):
        config = _config_name(args, index)
        if config is not None:
            chosen = _yaml(config).get("data_module", chosen)
        elif arg.startswith("--data_module="):
            chosen = arg.partition("=")[2]
        elif index > 0 and args[index - 1] == "--data_module":
            chosen = arg
    if chosen in DATA_MODULES:
        return DATA_MODULES[chosen]
    try:
        found = pydoc.locate(str(chosen))
    except pydoc.ErrorDuringImport as error:
        raise GipoError(f"data_module {chosen!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, PolicyDataModule)) or isabstract(found):
        raise GipoError(
            f"data_module {chosen!r} is no data module; name {' or '.join(DATA_MODULES)}, "
            "or the path of a class derived from datamodules.base.PolicyDataModule"
        )
    return found


def _config_name(args: list[str], index: int) -> str | None:
    """The configuration file that argument `index` names, if it names one."""
    flag, equals, value = args[index].partition("=")
    if index > 0 and args[index - 1] in ("--config", "-c"):
        return args[index]
    return value if flag in ("--config", "-c") and equals else None


def _yaml(path: str) -> dict[str, Any]:
    """A configuration; with several of them the parser's own message leaves open which one is broken, and where."""
    try:
        found = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GipoError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from error
    return found if isinstance(found, dict) else {}
