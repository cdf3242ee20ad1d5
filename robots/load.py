"""From a name on the command line to a policy, and to a robot: a class or function, called with its own arguments."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.runtime.acting import ActingPolicy
from deploy.runtime.manifest import Manifest
from deploy.runtime.policy import OnnxPolicy
from deploy.runtime.serving.address import is_address
from deploy.runtime.serving.client import ServedPolicy
from deploy.runtime.serving.keys import read_token
from gipo.common.errors import UserError
from gipo.common.faults import described, line_of
from robots.base import Robot
from robots.drivers.contract import check_robot
from robots.settings.annotations import arguments, parameters
from robots.settings.assignments import parse_settings


def is_server(name: str) -> bool:
    """Whether the name of a policy is the address of a server, and no file's."""
    return is_address(name) and not Path(name).exists()


def load_policy(name: str, token: str | None = None, require_id: str | None = None) -> ActingPolicy:
    """The policy that a command line names, verified.

    Args:
        name: an artifact, or `host:port` of a server of one.
        token: file with the secret shared with that server.
        require_id: the policy id it must have, or a file that lists the ids allowed.

    Raises:
        UserError: when it cannot be had.
    """
    if not is_server(name):
        if token is not None:
            raise UserError(f"--token is for a server, host:port; {name} is a file")
        return OnnxPolicy.load(name, require_id)
    if token is None:
        raise UserError(f"{name} is a server: give the secret shared with it as --token FILE")
    return ServedPolicy(name, read_token(token), require_id)


def load_robot(name: str, manifest: Manifest, settings: Sequence[str], speed: float = 1.0) -> Robot:
    """Make a robot by its name on the command line.

    Args:
        name: `package.module:Class` or `package.module:function`; `NAME` alone is `robots.NAME:robot`.
        manifest: given to it if it has a parameter of that name.
        settings: `key=value`, the other arguments; each is read as its annotation says, and stays text without one.
        speed: given to it if it has a parameter of that name.

    Raises:
        UserError: when there is no such thing, it refuses its arguments, or it is no robot.
    """
    path = name if ":" in name else f"robots.{name}:robot"
    make = imported(path, f"robot {name!r}", "name sim, gym, lerobot, or package.module:Class")
    ours = {"manifest": manifest, "speed": speed}
    texts = parse_settings(settings)
    if taken := sorted(set(ours) & set(texts)):
        raise UserError(f"--set {taken[0]} is given by gipo-robot itself, from --policy and --speed")
    given = {key: value for key, value in ours.items() if key in parameters(make)}
    read = arguments(make, texts, "--set ", given)
    robot: Robot = made(make, read, f"--robot {name}")
    check_robot(robot, f"--robot {name}")
    if speed != 1 and not getattr(robot, "simulated", False):
        raise UserError(f"--speed {speed:g} is for simulated robots; {name} runs by the wall clock")
    return robot


def made(make: Any, arguments: Mapping[str, Any], what: str) -> Any:
    """What `make` gives; `what` is how its failure is named.

    Raises:
        UserError: when it cannot be made.
    """
    try:
        return make(**arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever its author raises
        raise UserError(f"{what} cannot be made: {described(error)}") from error


def imported(path: str, what: str, advice: str) -> Any:
    """What `package.module:Name` names, called `what` in the message where there is none.

    It ends with `advice`, or the line of the module that fails.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # importing a module runs whatever it holds
        place = line_of(error)
        fix = f"it fails{place}" if place else advice
        raise UserError(f"there is no {what} ({type(error).__name__}: {error}); {fix}") from error
