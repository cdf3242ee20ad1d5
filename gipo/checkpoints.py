"""What is in a checkpoint, read without running code, and without Lightning: an export starts in half the time."""

import hashlib
import inspect
import json
import os
import zipfile
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.optim import SGD, Optimizer

from gipo.common.checkpoint_head import CheckpointHead, check_is_file, unreadable
from gipo.common.errors import UserError
from gipo.policies import Policy, build

KERNELS = ("foreach", "fused", "capturable", "differentiable")  # options of an optimizer that change no update
NEEDS = {"amsgrad": "max_exp_avg_sq", "centered": "grad_avg", "momentum": "momentum_buffer"}  # option → its state
# Of torch's optimizers, what has the shape of the parameter that it moves.
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum")


def checkpoint_id(checkpoint: dict[str, Any]) -> str:
    """SHA-256, hex, of the policy: its weights and buffers, its description, and the configuration it was trained with.

    Equal runs give equal ids; so do two files of one run that hold the same policy, such as `best` and `last`.
    """
    head = CheckpointHead.of(checkpoint)
    described = json.dumps([head.policy, head.config_hash], sort_keys=True)
    state = hashlib.sha256(described.encode())
    for name, tensor in sorted(_policy_state(checkpoint).items()):
        values = tensor.detach().cpu().contiguous()
        state.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        state.update(values.flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()


def load_checkpoint(path: str | os.PathLike[str], map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint without unpickling code.

    Raises:
        UserError: when there is no such file, it is truncated or damaged, or no gipo checkpoint.
    """
    check_is_file(path)
    try:
        # torch reads flipped bits without complaint; the archive has a checksum of every tensor.
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"{broken} fails its checksum")
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # many kinds for damaged files
        raise unreadable(path, error) from error
    CheckpointHead.of(checkpoint, path)
    return checkpoint


def policy_from(checkpoint: dict[str, Any]) -> Policy:
    """The policy a checkpoint holds, with its weights, normaliser and version.

    Raises:
        UserError: when weights are missing, of another shape, or not finite.
    """
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError("the checkpoint has no 'state_dict': it is damaged or was not written by gipo fit")
    policy = build(CheckpointHead.of(checkpoint).policy)
    weights = _policy_state(checkpoint)
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"the checkpoint's weights do not fit the policy it describes: {error}") from error
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise UserError(f"the checkpoint's weights are not finite: {', '.join(broken[:3])}")
    return policy.eval()


def refuse_other_policy(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise a UserError that names where the description of a checkpoint's policy is not the one `wanted`."""
    different = [f"{name}: checkpoint {old}, configuration {new}" for name, old, new in _different(found, wanted)]
    if different:
        raise UserError(
            f"the checkpoint holds another policy than the data and model.policy ask for ({'; '.join(different)})"
        )


def _different(found: dict[str, Any], wanted: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What two descriptions do not agree on, by the names that lead to it: (`spaces.observation_size`, 39, 2)."""
    for key in wanted | found:
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _different(old, new, f"{within}{key}.")
        elif old != new:
            yield f"{within}{key}", old, new


def refuse_other_frozen(found: Collection[str] | None, wanted: Collection[str]) -> None:
    """Raise a UserError when a checkpoint, unless it does not say, holds other parts still than `wanted`."""
    if found is not None and _outermost(found) != _outermost(wanted):
        raise UserError(
            f"the checkpoint is of a run with model.frozen={[*found]}, this one has {[*wanted]}; resume with the same, "
            "or start a new run with --model.init_from"
        )


def _outermost(names: Collection[str]) -> set[str]:
    """The names of parts without those of parts within them."""
    return {name for name in names if not any(name.startswith(f"{other}.") for other in names)}


def refuse_other_optimizer(state: dict[str, Any], optimizer: Optimizer) -> None:
    """Refuse the state of an optimizer that does not keep what this one, still without a state, asks for.

    Raises:
        UserError: naming what is missing, or that it moves other parameters.
    """
    asked = set(optimizer.param_groups[0])
    moved, moves = (
        [each for group in groups for each in group["params"]]
        for groups in (state["param_groups"], optimizer.param_groups)
    )
    advice = "model.frozen names other parts; resume with those of the run, or start a new run with --model.init_from"
    if len(moved) != len(moves):
        raise UserError(
            f"the checkpoint's optimizer moves {len(moved)} parameters, and that of this run {len(moves)}: {advice}"
        )
    _refuse_new_state(state, optimizer)
    for key, parameter in zip(moved, moves, strict=True):
        kept = state["state"].get(key, {})
        shapes = {tuple(kept[name].shape) for name in MOMENTS if isinstance(kept.get(name), torch.Tensor)}
        if shapes - {tuple(parameter.shape)}:
            raise UserError(f"the checkpoint's optimizer moves parameters of other shapes: {advice}")
    optimizer.load_state_dict({"state": {}, "param_groups": state["param_groups"]})
    missing = asked - set(optimizer.param_groups[0])
    if missing:
        raise UserError(
            f"the checkpoint is of another optimizer than model.optimizer, {type(optimizer).__name__}: it has no "
            f"{', '.join(sorted(missing))}; resume with that one, or start a new run with --model.init_from"
        )


def _refuse_new_state(state: dict[str, Any], optimizer: Optimizer) -> None:
    """Refuse options that need a state which the steps of the checkpoint did not keep."""
    had, asked = state["param_groups"][0], optimizer.param_groups[0]
    for option, name in NEEDS.items():
        new = asked.get(option) and option in had and not had[option]
        if (
            new
            and any(kept and name not in kept for kept in state["state"].values())
            and not isinstance(optimizer, SGD)
        ):
            raise UserError(
                f"the checkpoint's optimizer kept nothing that model.optimizer.{option}={asked[option]} could go on "
                "from; leave it out, or start a new run with --model.init_from"
            )


def options_of(optimizer: Optimizer) -> set[str]:
    """The names of what its constructors take and what changes its updates; all else in its groups is its own."""
    made = [vars(kind)["__init__"] for kind in type(optimizer).__mro__ if "__init__" in vars(kind)]
    return {name for each in made for name in inspect.signature(each).parameters} - {"params", *KERNELS}


def _policy_state(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = checkpoint["state_dict"]
    return {name.removeprefix("policy."): value for name, value in state.items() if name.startswith("policy.")}
