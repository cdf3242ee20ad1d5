"""The gate every command passes: pure functions of limits, state and target, without clock, thread or driver.

Order: finite → freshness → bounds → rate → acceleration → first-command continuity, soft engage. What is merely too
much is reduced, and the reason kept; what no working policy, sensor or clock produces stops the robot.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.ma import MaskedArray

from gipo.common.errors import UserError
from robots.spec import MEASURED, RobotSpec

BEYOND = 0.5  # of the range: a command or hold further outside of its bounds than this is a fault, not an excess
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Limits:
    """Limits per dimension and control tick, from a spec.

    Shapes: [D] float64, those of the observation [O]. `rate` is the largest step of a tick, `acceleration` the largest
    change of that step; infinite where there is no limit.
    """

    low: np.ndarray
    high: np.ndarray
    rate: np.ndarray
    acceleration: np.ndarray
    observation_low: np.ndarray
    observation_high: np.ndarray

    @classmethod
    def of(cls, spec: RobotSpec) -> "Limits":
        """Limits of a robot at its nominal period; a late tick may not move further for being late."""
        period = 1 / spec.control_rate_hz
        rate = np.array([np.inf if limit is None else limit * period for limit in spec.action_rate])
        acceleration = np.array([np.inf if limit is None else limit * period**2 for limit in spec.action_acceleration])
        bounds = (spec.action_low, spec.action_high, spec.observation_low, spec.observation_high)
        low, high, observation_low, observation_high = (np.array(values, float) for values in bounds)
        return cls(low, high, rate, acceleration, observation_low, observation_high)


@dataclass(frozen=True)
class Motion:
    """What was sent last: `command` [D], and the step `velocity` [D] it was from the one before."""

    command: np.ndarray
    velocity: np.ndarray


def refuse(fault: str) -> None:
    """Raise a fault that was found as a `UserError`; nothing, where none was."""
    if fault:
        raise UserError(fault)


def check_numbers(what: str, values: Any, names: tuple[str, ...]) -> str:
    """Why `values` is not a finite float vector with one entry per name; empty when it is."""
    if not isinstance(values, np.ndarray) or isinstance(values, MaskedArray):  # what is masked was not measured
        return f"{what} is a {type(values).__name__}, not an array"
    if values.shape != (len(names),):
        return f"{what} has shape {values.shape}, not ({len(names)},)"
    if values.dtype not in (np.float32, np.float64):
        return f"{what} has dtype {values.dtype}, not float32 or float64"
    finite = np.isfinite(values)
    if not finite.all():
        worst = int(np.argmin(finite))
        return f"{what} {names[worst]!r} is {values[worst]}"
    return ""


def check_latent(latent: Any, size: int) -> str:
    """Why a latent is no vector of tokens or finite numbers; empty when it is."""
    if not isinstance(latent, np.ndarray) or latent.shape != (size,) or latent.dtype not in (np.int64, np.float32):
        return f"latent is {latent!r:.60}, not {size} int64 tokens or float32 numbers"
    return "" if np.isfinite(latent).all() else f"latent is not finite: {latent.tolist()}"


def check_observation(spec: RobotSpec, limits: Limits, values: Any) -> str:
    """Why an observation cannot be real; empty when it can."""
    if fault := check_numbers("observation", values, spec.observation_names):
        return fault
    with np.errstate(over="ignore"):  # beyond float32 is infinite, on both sides
        seen, least, most = (
            each.astype(np.float32) for each in (values, limits.observation_low, limits.observation_high)
        )
    outside = (seen < least) | (seen > most)  # a bound of .1 is float32's, to a driver of float32
    if outside.any():
        i = int(np.argmax(outside))
        low, high = spec.observation_low[i], spec.observation_high[i]
        return f"observation {spec.observation_names[i]!r} is {values[i]:.6g}, no reading between {low:g} and {high:g}"
    return ""


def check_privileged(values: Any, before: Any) -> str:
    """Why values cannot be what a simulator knows beside its observation; empty when they can.

    Args:
        values: [G] or None.
        before: the same of the observation before; of the first of an episode its own.
    """
    if values is None or before is None:
        return "" if values is before else "privileged is said of some observations and not of others"
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype not in (np.float32, np.float64):
        return f"privileged is {values!r:.60}, neither a float vector nor always None"
    if values.shape != before.shape:
        return f"privileged has {len(values)} numbers, and had {len(before)} before"
    return "" if np.isfinite(values).all() else f"privileged is not finite: {values.tolist()!r:.60}"


def check_outcome(reward: Any, success: Any, terminated: Any) -> str:
    """Why these outcomes of a command cannot be; empty when they can. A text or NaN must not pass for True."""
    if not _is_float32(reward):
        return f"the reward is {reward!r:.60}, no finite float32"
    if success is not None and not _is_truth(success):
        return f"success is {success!r:.60}, it must be True, False or None"
    return "" if _is_truth(terminated) else f"terminated is {terminated!r:.60}, it must be True or False"


def check_sent(spec: RobotSpec, limits: Limits, sent: Any) -> str:
    """Why a driver cannot have sent this; empty when it can. Numbers of another unit would be logged as actions."""
    fault = check_numbers("sent action", sent, spec.action_names)
    return fault or _far_outside("sent action", sent, limits.low, limits.high, spec.action_names)


def check_freshness(measured_ns: int, previous_ns: int, now_ns: int, max_age_ns: int) -> str:
    """Why an observation is too old, from the future, or older than the one before it; empty when it is fine."""
    if type(measured_ns) is not int:
        return f"the observation's time is {measured_ns!r}, no whole number of nanoseconds: an int of Python"
    if measured_ns > now_ns:
        return f"the observation is from {(measured_ns - now_ns) / 1e6:.3f} ms in the future: its clock is wrong"
    if measured_ns < previous_ns:
        return f"the observation is {(previous_ns - measured_ns) / 1e6:.3f} ms older than the one before it"
    if now_ns - measured_ns > max_age_ns:
        return f"the observation is {(now_ns - measured_ns) / 1e6:.3f} ms old, more than {max_age_ns / 1e6:.3f} ms"
    return ""


def held_by(spec: RobotSpec, hold: np.ndarray | None) -> np.ndarray:
    """[D] the command that keeps the robot where it is: what the driver says, else the spec's numbers.

    Raises:
        UserError: when the spec says "measured" and the driver does not say what was.
    """
    if hold is not None:
        return hold
    if names := spec.measured_hold:
        way = f"observe() gives Observation(…, hold=spec.hold({{{names[0]!r}: where it stands}}))"
        held = f"the spec holds {names[0]!r} where it is measured"
        raise UserError(f"{held}, and the driver's observation has no `hold`: {way}")
    return spec.hold({})


def kept_by(spec: RobotSpec, begun: np.ndarray, hold: np.ndarray) -> np.ndarray:
    """[D] what goes on holding a robot: positions where they were measured when it began, all else as it is said now.

    A servo stands a little below its goal under a load. Told at each tick where it stands, it would sink at each tick.

    Args:
        spec: of the robot.
        begun: [D] what held it at first.
        hold: [D] what would hold it now.

    Raises:
        UserError: when that is nothing that could.
    """
    refuse(check_numbers("hold", hold, spec.action_names))
    return np.where([each == MEASURED for each in spec.action_hold], begun, hold)


def start(spec: RobotSpec, hold: np.ndarray | None) -> Motion:
    """The state from which the first command continues: the robot as it stands, at rest.

    Raises:
        UserError: when the robot does not say where it stands; or when it stands so far outside of its bounds that the
            way back into them, which is one command, is longer than the limits let a command be.
    """
    held = held_by(spec, hold)
    if fault := check_numbers("hold", held, spec.action_names):
        raise UserError(f"the robot cannot be engaged: {fault}")
    limits = Limits.of(spec)
    inside = np.clip(held.astype(float), limits.low, limits.high)
    fault = _far_outside("hold", held, limits.low, limits.high, spec.action_names)
    too_far = np.abs(held - inside) > np.minimum(limits.rate, limits.acceleration)
    if not fault and too_far.any():
        i = int(np.argmax(too_far))
        where = f"outside of {limits.low[i]:g} to {limits.high[i]:g} by more than one command may move it"
        fault = f"hold {spec.action_names[i]!r} is {held[i]:.6g}, {where}"
    if fault:
        raise UserError(f"the robot cannot be engaged: {fault}; move it back by hand")
    return Motion(held.astype(float), np.zeros(len(held)))


def gate(
    spec: RobotSpec, limits: Limits, state: Motion, target: Any, hold: np.ndarray, engaged: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A command [D] float64 within every limit, and what was reduced: `bounds`, `engage`, `rate`, `acceleration`.

    After a driver sent what lies outside of the bounds, commands lead back into them, and lie outside until they have.

    Args:
        spec: of the robot.
        limits: of the spec.
        state: what was sent before.
        target: [D] what the policy asks for; checked here, so anything may come.
        hold: [D] what keeps the robot as it was when control was handed over.
        engaged: 0 when control was just handed over, 1 when the policy has all of it.

    Raises:
        UserError: why the robot must stop, and nothing may be sent.
    """
    fault = check_numbers("action", target, spec.action_names)
    refuse(fault or _far_outside("action", target, limits.low, limits.high, spec.action_names))
    changed = []
    wanted = np.clip(target.astype(float), limits.low, limits.high)
    if (wanted.astype(np.float32) != target.astype(np.float32)).any():  # a bound of .1 is float32's, to a policy
        changed.append("bounds")
    if engaged < 1:
        refuse(check_numbers("hold", hold, spec.action_names))
        changed.append("engage")
        wanted = np.clip(hold + engaged * (wanted - hold), limits.low, limits.high)
    step = wanted - state.command
    rated = np.clip(step, -limits.rate, limits.rate)
    if (rated != step).any():
        changed.append("rate")
    smooth = _accelerate(limits, state, rated)
    if (smooth != rated).any():
        changed.append("acceleration")
    low, high = np.minimum(limits.low, state.command), np.maximum(limits.high, state.command)
    command = np.where(smooth == step, wanted, np.clip(state.command + smooth, low, high))
    if not np.isfinite(command).all():  # cannot be, by all of the above; and must not be
        raise UserError(f"the gate itself gives {command.tolist()}")
    return command, tuple(changed)


def advance(state: Motion, command: np.ndarray, sent: np.ndarray) -> Motion:
    """The state after `sent` [D] went out where `command` [D] was to.

    What a driver corrects is no motion of the robot's: only as much of the way as was commanded counts as its velocity.
    """
    commanded = command - state.command
    velocity = np.clip(sent - state.command, np.minimum(commanded, 0), np.maximum(commanded, 0))
    return Motion(sent.astype(float), velocity)


def _is_float32(value: Any) -> bool:
    try:
        return abs(float(value)) <= FLOAT32_MAX
    except (TypeError, ValueError, OverflowError):
        return False


def _is_truth(value: Any) -> bool:
    try:
        return value in (False, True)
    except ValueError:  # an array of several
        return False


def _far_outside(what: str, values: np.ndarray, low: np.ndarray, high: np.ndarray, names: tuple[str, ...]) -> str:
    margin = BEYOND * (high - low)
    outside = (values < low - margin) | (values > high + margin)
    if not outside.any():
        return ""
    i = int(np.argmax(outside))
    return f"{what} {names[i]!r} is {values[i]:.6g}, far outside of {low[i]:g} to {high[i]:g}"


def _accelerate(limits: Limits, state: Motion, step: np.ndarray) -> np.ndarray:
    """The step nearest to `step` that changes the velocity by no more than allowed, now and when braking at a bound.

    From a velocity v, a braking robot still travels (v − a) + (v − 2a) + …, so a step u is allowed only while
    u + (u − a) + (u − 2a) + … fits into what is left to the bound; then braking always stays possible.
    """
    accelerations, velocity = limits.acceleration, state.velocity
    if np.isinf(accelerations).all():
        return step
    up = _brakeable(limits.high - state.command, accelerations)
    down = -_brakeable(state.command - limits.low, accelerations)
    low = np.maximum(velocity - accelerations, down)
    high = np.minimum(velocity + accelerations, up)
    # Empty only when a driver sent something else than it was given: then brake as hard as allowed.
    braking = np.clip(0.0, velocity - accelerations, velocity + accelerations)
    return np.where(low <= high, np.clip(step, low, high), braking)


def _brakeable(distance: np.ndarray, accelerations: np.ndarray) -> np.ndarray:
    """Largest step u ≥ 0 with u + (u − a)⁺ + (u − 2a)⁺ + … ≤ distance; all [D]."""
    room = np.maximum(distance, 0.0)
    finite = np.where(np.isinf(accelerations), 1.0, accelerations)
    # n terms of the sum are positive when a·n(n−1)/2 < distance ≤ a·n(n+1)/2.
    terms = np.maximum(np.ceil((np.sqrt(1 + 8 * room / finite) - 1) / 2), 1.0)
    u = (room + finite * terms * (terms - 1) / 2) / terms
    return np.where(np.isinf(accelerations), room, u)
