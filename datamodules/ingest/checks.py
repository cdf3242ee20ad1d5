"""What must be true of an episode before it may teach anything: vectorised checks that name the step."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from datamodules.ingest.interface import Interface
from datamodules.ingest.sources.base import POLICY, Trajectory
from gipo.common.errors import UserError
from gipo.common.transition import COLUMNS, NOBODY_SAID, SOURCES, STORED, complete

ROUNDING = 1e-6  # of a dimension's range: what float32 may add to a bound; nats: what it may add to log 1


@dataclass(frozen=True)
class Behaviour:
    """What is known of a policy that acted.

    Args:
        policy_id: of its artifact.
        policy_version: learner version of its weights.
        interface: names, units, bounds, rate, family and parameters it was made for.
    """

    policy_id: str
    policy_version: int
    interface: Interface


def checked(trajectory: Trajectory, interface: Interface, behaviour: Behaviour | None) -> dict[str, np.ndarray]:
    """The columns in the types they are stored as; `log_prob` is 0 where the policy did not choose the action.

    Args:
        trajectory: of at least one step.
        interface: of its source.
        behaviour: of the policy that acted; None when nobody knows.

    Raises:
        UserError: naming the step and what is wrong there.
    """
    columns = _typed(trajectory, interface)
    for field in COLUMNS:
        if field.finite and field.name in columns:
            _refuse(columns, ~np.isfinite(columns[field.name]), f"{field.name} is not finite")
    _check_order(columns)
    valid = columns["valid"]
    if valid.any():
        _check_policy(trajectory, columns, interface, behaviour)
    if behaviour is not None and behaviour.interface.chunk is not None:
        _check_chunks(columns, behaviour)
    _refuse(columns, ~np.isin(columns["source"], (NOBODY_SAID, *range(len(SOURCES)))), "source is none that there is")
    _refuse(columns, valid & (columns["source"] > SOURCES.index("policy")), "valid, yet the policy did not choose")
    _check_bounds(columns, interface)
    if "log_prob" in columns:
        _check_log_prob(columns, interface if behaviour is None else behaviour.interface)
        columns["log_prob"] = np.where(valid[:, None], columns["log_prob"], np.float32(0))
    return columns


def _typed(trajectory: Trajectory, interface: Interface) -> dict[str, np.ndarray]:
    found = trajectory.columns
    if "step" not in found:
        raise UserError("it has no step")
    if len(POLICY & set(found)) == 1:
        raise UserError("it has one of latent and log_prob; one is of no use without the other")
    sizes = {"O": interface.observation_size, "D": interface.action_size}
    for symbol, name in (("G", "privileged"), ("C", "picture")):  # as many as there are
        sizes[symbol] = int(np.prod(found[name].shape[1:])) if name in found else 0
    typed: dict[str, np.ndarray] = {}
    for field in COLUMNS:
        values = found.get(field.name)
        if values is None:
            # Ours says all that there was to say when it was written; of others much is missing.
            completed = field.default is not None and (field.later or not trajectory.native)
            if not completed and not field.optional:
                raise UserError(f"it has no {field.name}")
            continue
        shape = (len(found["step"]), *(sizes[symbol] for symbol in field.shape.split()))
        if values.shape != shape:
            raise UserError(f"{field.name} has shape {list(values.shape)}, it must be {list(shape)}")
        kind = field.type_for(values.dtype.kind in "iu")
        if kind.kind in "bi" and values.dtype.kind not in "biu":
            raise UserError(f"{field.name} holds {values.dtype}, it must hold {kind}")
        typed[field.name] = field.typed(values)
        if kind.kind == "i" and (typed[field.name] != values).any():
            raise UserError(f"{field.name} holds numbers beyond {kind}")
    complete(typed, STORED)
    return typed


def _check_order(columns: Mapping[str, np.ndarray]) -> None:
    step, done = columns["step"], columns["terminated"] | columns["truncated"]
    change = np.diff(step)
    _refuse(columns, np.concatenate([step[:1] < 0, change < 1]), "step is out of order")
    _refuse(columns, columns["terminated"] & columns["truncated"], "it is terminated and truncated at once")
    ends = np.append(change > 1, True)
    _refuse(columns, done & ~ends, "the episode is done and yet goes on")
    _refuse(columns, ~done & ends, "the episode stops, or steps are missing, and yet it is not done")


def _check_policy(
    trajectory: Trajectory, columns: Mapping[str, np.ndarray], interface: Interface, behaviour: Behaviour | None
) -> None:
    if behaviour is None:
        if trajectory.native:
            who = trajectory.policy_id
            known = "no policy is named" if who is None else f"policy {who} is unknown, its manifest is not in the log"
            raise UserError(f"{known}; its sampled actions cannot be learnt from")
        return
    if difference := interface.difference(behaviour.interface):
        raise UserError(f"policy {behaviour.policy_id[:12]}… was made for another robot: {difference}")
    other = columns["valid"] & (columns["policy_version"] != behaviour.policy_version)
    _refuse(columns, other, f"policy_version is not {behaviour.policy_version}, that of {behaviour.policy_id[:12]}…")


def _check_chunks(columns: Mapping[str, np.ndarray], behaviour: Behaviour) -> None:
    chunk, place = behaviour.interface.chunk, columns["chunk_step"]
    assert chunk is not None
    if "picture" not in columns:
        raise UserError(f"policy {behaviour.policy_id[:12]}… sees, and the log has no image of what it saw")
    _refuse(columns, (place < 0) | (place >= chunk), f"chunk_step is none of a decision on {chunk} actions")


def _check_bounds(columns: Mapping[str, np.ndarray], interface: Interface) -> None:
    if interface.action_low is None or interface.action_high is None:
        return
    low, high = np.array(interface.action_low), np.array(interface.action_high)
    room = ROUNDING * (high - low)
    outside = (columns["action"] < low - room) | (columns["action"] > high + room)
    _refuse(columns, outside & columns["valid"][:, None], "action is outside of its bounds")


def _check_log_prob(columns: Mapping[str, np.ndarray], known: Interface) -> None:
    valid, log_prob, latent = columns["valid"][:, None], columns["log_prob"], columns["latent"]
    _refuse(columns, valid & ~np.isfinite(log_prob), "log_prob is not finite")
    token = latent.dtype.kind == "i"
    if known.family is not None and token != (known.family == "token"):
        raise UserError(f"latent holds {latent.dtype}, the policy is of the family {known.family}")
    if not token:
        _refuse(columns, valid & ~np.isfinite(latent), "latent is not finite")
        return
    _refuse(columns, valid & (log_prob > ROUNDING), "log_prob of a token is above 0")
    bins = known.parameters_per_dimension
    outside = (latent < 0) | (latent >= (np.iinfo(np.int64).max if bins is None else bins))
    _refuse(columns, valid & outside, "latent is no token" + ("" if bins is None else f" from 0 to {bins - 1}"))


def _refuse(columns: Mapping[str, np.ndarray], bad: np.ndarray, reason: str) -> None:
    """Raise about the first step of bad [T] or [T, n] that is True."""
    if bad.any():
        row = int(np.argmax(bad.reshape(len(bad), -1).any(1)))
        raise UserError(f"step {columns['step'][row]}: {reason}")
