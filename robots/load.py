"""From a name on the command line to a robot: a class or function anywhere, called with its own arguments."""

import contextlib
import importlib
import inspect
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from deploy.manifest import Manifest
from robots.base import Robot
from robots.errors import RobotError


def load_robot(name: str, manifest: Manifest, settings: Sequence[str], speed: float = 1.0) -> Robot:
    """Make a robot.

    Args:
        name: `package.module:Class` or `package.module:function`; `NAME` alone is `robots.NAME:robot`.
        manifest: given to it if it has a parameter of that name.
        settings: `key=value`, the other arguments; values are JSON where they can be.
        speed: given to it if it has a parameter of that name.

    Raises:
        RobotError: when there is no such thing, or it refuses its arguments.
    """
    make = _find(name)
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError) as error:
        raise RobotError(f"--robot {name} is nothing that can be called: {error}") from error
    given = {key: value for key, value in {"manifest": manifest, "speed": speed}.items() if key in parameters}
    arguments = dict(map(parse_setting, settings))
    try:
        robot: Robot = make(**{**given, **arguments})
    except TypeError as error:
        known = ", ".join(key for key in parameters if key != "manifest") or "none"
        raise RobotError(f"--robot {name}: {error}; its settings are: {known}") from error
    for method in ("connect", "prepare", "observe", "act", "stop", "close"):
        if not callable(getattr(robot, method, None)):
            raise RobotError(f"--robot {name} gives a {type(robot).__name__} without {method}(); see robots.base.Robot")
    if speed != 1 and not getattr(robot, "simulated", False):
        raise RobotError(f"--speed {speed:g} is for simulated robots; {name} runs by the wall clock")
    return robot


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` as a pair; the value as JSON or a number if it is one, else as text."""
    key, separator, value = text.partition("=")
    if not separator or not key.isidentifier():
        raise RobotError(f"--set {text!r} must be key=value")
    for read in (json.loads, float):
        with contextlib.suppress(ValueError):
            return key, read(value)
    return key, value


def _find(name: str) -> Any:
    module_name, _, attribute = name.partition(":") if ":" in name else (f"robots.{name}", "", "robot")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a robot of your own need not be installed
    try:
        module = importlib.import_module(module_name)
        return getattr(module, attribute)
    except Exception as error:  # importing a module runs whatever it holds
        found = f"{type(error).__name__}: {error}"
        raise RobotError(
            f"there is no robot {name!r} ({found}); name sim, gym, lerobot, or package.module:Class"
        ) from error
