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
from gipo.common.errors import UserError, nearest

DATA_MODULES = {module.__name__: module for module in (OnlineDataModule, OfflineDataModule)}
# The class behind an option whose default is null, as its being named means more than its options: a run that starts
# from a checkpoint's policy refuses another one only where one is named.
IMPLIED_CLASSES = {"model.policy": "gipo.policies.TokenPolicy"}
BESIDE_A_CLASS = ("class_path", "init_args", "dict_kwargs")
# Configurations that another one has taken the place of, and the options that make it the same.
FORMERLY_SHIPPED = {
    f"libero_{suite}.yaml": f"--data.task=libero_{suite}" for suite in ("spatial", "object", "goal", "10")
}
FORMERLY_SHIPPED["libero_90.yaml"] = (
    "--data.task=libero_90 --data.evaluation.episodes=90 --data.evaluation.test_episodes=4500"
)


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
            if name in FORMERLY_SHIPPED:
                raise UserError(f"{name} is now libero.yaml: --config libero.yaml {FORMERLY_SHIPPED[name]}")
            if name not in shipped:
                raise UserError(f"no configuration file {name!r}, here or shipped. Shipped: {nearest(name, shipped)}")
            arg = arg.removesuffix(name) + str(shipped[name])
        found.append(arg)
    return found


def with_implied_classes(args: list[str]) -> list[str]:
    """Name the class of an option where options of it are given and no class is: the first value, so that any wins."""
    found = list(args)
    for option, class_path in IMPLIED_CLASSES.items():
        found = [f"{arg}={class_path}" if arg == f"--{option}.help" else arg for arg in found]
        given = any(arg.startswith(f"--{option}.") and not arg.startswith(f"--{option}.help") for arg in found)
        configs = filter(None, (_config_name(args, index) for index in range(len(args))))
        if given or any(_names_options_alone(_yaml(config), option) for config in configs):
            found.insert(1, f"--{option}={class_path}")
    return found


def _names_options_alone(config: dict[str, Any], option: str) -> bool:
    value: Any = config
    for key in option.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return isinstance(value, dict) and "class_path" not in value


def data_module(args: list[str]) -> type[PolicyDataModule]:
    """The data module that arguments or configurations name; it must be known before its options can be parsed.

    Raises:
        UserError: when there is no such class, or it is none of ours.
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
    if str(chosen) in DATA_MODULES:
        return DATA_MODULES[str(chosen)]
    try:
        found = pydoc.locate(str(chosen))
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"data_module {chosen!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, PolicyDataModule)) or isabstract(found):
        raise UserError(
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
        found = yaml.load(Path(path).read_text(), _Unique)
    except OSError as error:
        raise UserError(f"--config {path or '(empty)'} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path} is not a readable YAML file{line}: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        what = "empty" if found is None else f"a {type(found).__name__}"
        raise UserError(f"{path} is {what}; a configuration is a mapping, as `gipo fit --print_config` prints it")
    if [*found.values()] == [None]:
        raise UserError(f"{path} says nothing: there is nothing below {next(iter(found))!r}")
    _refuse_beside_a_class(found, path)
    return found


def _refuse_beside_a_class(found: Any, path: str) -> None:
    """Refuse options of a class that stand beside its name, of which the parser would say that no class is named."""
    if not isinstance(found, (dict, list)):
        return
    beside = [str(key) for key in found if str(key) not in BESIDE_A_CLASS]
    if beside and isinstance(found, dict) and isinstance(name := found.get("class_path"), str):
        raise UserError(f"{path}: {', '.join(beside)} of class_path {name!r} must stand in init_args")
    for one in found.values() if isinstance(found, dict) else found:
        _refuse_beside_a_class(one, path)


class _Unique(yaml.SafeLoader):
    """Refuses a key that is no name, or that is given twice, of which YAML would take the last and drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
