"""Whether an object is a robot, as far as that shows before anything moves, and what it gives is what it must be."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.ma import MaskedArray  # from np.ma it would be imported within the first tick, which takes 50 ms

from gipo.common.errors import UserError
from gipo.common.faults import described
from robots.base import Observation
from robots.spec import RobotSpec

ARGUMENTS = {"connect": (), "prepare": ("seed",), "observe": (), "act": ("action",), "stop": ("reason",), "close": ()}
_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def check_robot(robot: Any, name: str) -> None:
    """Refuse what lacks a method, has one that cannot be called as the loop does, or says no spec.

    A `stop` that takes no reason, or that is `async`, would be found out when the robot is to stop.

    Args:
        robot: not yet connected.
        name: what it is called in messages.

    Raises:
        UserError: naming the method.
    """
    kind = type(robot).__name__
    for method, arguments in ARGUMENTS.items():
        function = getattr(robot, method, None)
        if not callable(function):
            raise UserError(f"{name} gives a {kind} without {method}(); see robots.base.Robot")
        if fault := _fault(function, arguments):
            raise UserError(f"{name}: {kind}.{method} {fault}; see robots.base.Robot")
    try:
        spec = robot.spec
    except Exception as error:  # a property runs whatever its author wrote
        raise UserError(f"{name} does not say its spec before it is connected: {described(error)}") from error
    if not isinstance(spec, RobotSpec):
        raise UserError(f"{name}: the spec of {kind} is a {type(spec).__name__}; it must be a robots.spec.RobotSpec")


def carry_out(method: Callable[..., Any], *arguments: Any) -> None:
    """Call a method of a driver that is to return nothing, and see that it does.

    Raises:
        TypeError: when it returned work that nobody will do, as where a decorator hides that it is `async`.
    """
    result = method(*arguments)
    if inspect.isawaitable(result) or inspect.isgenerator(result):
        if inspect.iscoroutine(result):
            result.close()  # else Python complains of it later
        raise TypeError(f"it returned a {type(result).__name__}, which nobody runs")


def owned(found: Observation) -> Observation:
    """An observation that keeps what it holds: a driver may fill the same memory again, also from another thread.

    Nor can whoever is shown it change it: an operator is while the policy is asked.

    Raises:
        TypeError: when it is none.
    """
    if not isinstance(found, Observation):
        raise TypeError(f"it gives a {type(found).__name__}, no robots.base.Observation")
    images: Any = found.images  # what is no mapping is refused as that
    if isinstance(images, Mapping):
        images = {camera: _copy(pixels) for camera, pixels in images.items()}
    kept = {name: _copy(getattr(found, name)) for name in ("values", "hold", "privileged")}
    return replace(found, **kept, images=images)


def numbers(sent: Any) -> np.ndarray:
    """What `act` returned as an array of its own; how many numbers those are is the loop's to check.

    Raises:
        TypeError: when it is none.
    """
    try:
        if sent is None:  # which NumPy takes for a number that is none
            raise TypeError("nothing was returned")
        return np.array(sent, float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"it returned {sent!r:.60}; it must return [D] what was really sent") from error


def _fault(function: Callable[..., Any], arguments: tuple[str, ...]) -> str:
    if any(is_later(function) for is_later in _LATER):
        return "is async or a generator, and a call of it does nothing; make it a plain method"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a library in C, which does not say
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return f"cannot be called with ({', '.join(arguments)}): {error}"
    return ""


def _copy(values: Any) -> Any:
    """A plain array of what is one, to be read alone; what is masked, or is none, as it is, and refused as that."""
    if not isinstance(values, np.ndarray) or isinstance(values, MaskedArray):
        return values
    copy = np.array(values)
    copy.setflags(write=False)
    return copy
