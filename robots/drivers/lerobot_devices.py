"""LeRobot's devices by LeRobot's own names, and configured by its own parser.

A device is `so101_follower`, as LeRobot's commands have it, or `package.module:Class`. Its configuration is what
`--robot.…` of those commands says, from a file, from texts, or from both.
"""

import difflib
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from gipo.common.faults import described
from gipo.common.reading import read_text
from robots.drivers.lerobot_bus import arms
from robots.load import imported
from robots.settings.annotations import build
from robots.settings.assignments import merged
from robots.spec import RobotSpec

RANGES = {"range_m100_100": (-100.0, 100.0), "range_0_100": (0.0, 100.0)}  # what LeRobot normalises positions to
DEGREES, RADIANS, SHARES = ("deg", "degree", "degrees", "°"), ("rad", "radian", "radians"), ("%", "percent")
ADVICE = "install lerobot beside gipo, and name a robot as LeRobot does, so101_follower, or package.module:Class"


def make_device(device: str, config: str = "", **fields: Any) -> Any:
    """A LeRobot device, made from its configuration and not yet connected.

    Args:
        device: LeRobot's name of a robot, or `package.module:Class`.
        config: file with the device's configuration, JSON or YAML, or with LeRobot's under `robot`; `fields` come on
            top of it.
        fields: of the configuration, as texts or plain data.

    Raises:
        UserError: when there is no such device, or it refuses its configuration.
    """
    kind, make = find_device(device)
    values = merged(_configuration(config, device) if config else {}, fields)
    try:
        return make(_configured(kind, values))
    except UserError:
        raise
    except Exception as error:  # the driver's author raises anything
        raise UserError(f"{device} refuses its configuration: {_told(error)}") from error


def find_device(name: str) -> tuple[Any, Callable[[Any], Any]]:
    """The class of a device's configuration, and what makes the device of one.

    Raises:
        UserError: when there is no such device.
    """
    if ":" not in name:
        return _named(name)
    kind = imported(name, f"LeRobot device {name!r}", ADVICE)
    if not hasattr(kind, "config_class"):
        raise UserError(f"{name} is no LeRobot device: it has no config_class")
    return kind.config_class, kind


def normalised(device: Any, name: str) -> str:
    """LeRobot's word for what it makes of a motor's position: `degrees`, or one of RANGES; empty where it says none."""
    for begin, arm in arms(device).items():
        motor = arm.bus.motors.get(name.removeprefix(begin).removesuffix(".pos")) if name.startswith(begin) else None
        if mode := getattr(motor, "norm_mode", ""):
            return str(getattr(mode, "value", mode))
    return ""


def check_units(named: RobotSpec | Manifest, side: str, device: Any) -> None:
    """Refuse a spec or a policy, called `side` in the message, whose positions are in other units than the device's.

    Raises:
        UserError: naming the first.
    """
    observed = zip(named.observation_names, named.observation_units, strict=True)
    for name, unit in (*observed, *zip(named.action_names, named.action_units, strict=True)):
        mode = normalised(device, name) if name.endswith(".pos") else ""
        if mode in RANGES and unit in (*DEGREES, *RADIANS):
            low, high = RANGES[mode]
            found = f"from {low:g} to {high:g} of its range ({mode}); many devices have use_degrees=true for degrees"
        elif mode == "degrees" and unit in (*RADIANS, *SHARES):
            found = "in degrees; many devices have use_degrees=false for a share of the range"
        else:
            continue
        raise UserError(f"the {side} has {name!r} in {unit}, and the device has it {found}")


def _named(name: str) -> tuple[Any, Callable[[Any], Any]]:
    try:
        robots = importlib.import_module("lerobot.robots")
    except Exception as error:  # importing a module runs whatever it holds
        raise UserError(f"there is no LeRobot device {name!r} ({type(error).__name__}: {error}); {ADVICE}") from error
    known = robots.RobotConfig.get_known_choices
    if name not in known():
        _register(robots)
    if name not in known():
        near = difflib.get_close_matches(name, known(), n=3, cutoff=0.5) or sorted(known())
        raise UserError(f"LeRobot has no robot {name!r}; it has {', '.join(near)}")
    return robots.RobotConfig.get_choice_class(name), robots.make_robot_from_config


def _register(package: Any) -> None:
    """Import LeRobot's robots or cameras, and those of plugins, which register when they are imported."""
    for _, module, _ in pkgutil.iter_modules(package.__path__):
        with suppress(Exception):  # most of them need the library of some device
            importlib.import_module(f"{package.__name__}.{module}")
    importlib.import_module("lerobot.utils.import_utils").register_third_party_plugins()


def _configured(kind: Any, values: dict[str, Any]) -> Any:
    """The configuration itself: read by draccus, as LeRobot does, where its class is one of draccus's choices."""
    if not hasattr(kind, "get_choice_name"):
        return build(kind, values, "--set ")
    if values.get("cameras"):  # whose kinds a robot, imported by its class, need not have imported
        _register(importlib.import_module("lerobot.cameras"))
    draccus = importlib.import_module("draccus")
    return draccus.decode(kind, {name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    """A text as draccus takes it: null and whatever is written as a list or a map are data, else it stays text.

    The field reads it: 01 is an id where a text is asked for, and a number where a number is.
    """
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, str) and (value == "null" or value.lstrip()[:1] in ("[", "{")):
        return importlib.import_module("yaml").safe_load(value)
    return value


def _told(error: BaseException) -> str:
    """What a parser or a device says, in one line: draccus says no more than that it failed, and its cause why."""
    if type(error).__module__.partition(".")[0] != "draccus":
        return " ".join(described(error).split())
    said = str(error) if error.__cause__ is None else f"{error} {error.__cause__}"
    return " ".join(said.split())


def _configuration(path: str, device: str) -> dict[str, Any]:
    text, is_yaml = read_text(path), path.endswith((".yaml", ".yml"))
    try:
        if is_yaml:
            import yaml  # comes with lerobot

            found = yaml.safe_load(text)
        else:
            found = json.loads(text)
    except Exception as error:  # yaml's errors share no base with json's
        why = "it is no YAML" if is_yaml else "it is no JSON, and no YAML by its name"
        raise UserError(f"--set config={path}: {why}: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("robot"), dict):
        found = found["robot"]  # a file of lerobot-record or lerobot-teleoperate
    if not isinstance(found, dict):
        raise UserError(f"--set config={path}: it must hold one object, the fields of the device's configuration")
    named = found.pop("type", device)
    if ":" not in device and named != device:
        raise UserError(f"--set config={path} is of a {named}, and --device says {device}")
    return found
