"""What a policy or network of somebody's own must be able to do, found out before a run learns anything with it."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from gipo.common.errors import UserError
from gipo.common.faults import described, is_ours
from gipo.policy import Policy, build, class_path
from gipo.vla.observations import VLASpaces

PARTS = ("encoder", "actor", "critic")


def refuse_unusable(policy: Policy) -> None:
    """Refuse a policy that could not be learned with, or not be made again from its checkpoint; ours are tested.

    Raises:
        UserError: naming the class, and what it lacks.
    """
    network = policy.network
    if is_ours(policy) and is_ours(network):
        return
    for part in PARTS:
        if not isinstance(getattr(network, part, None), nn.Module):
            raise UserError(f"{class_path(network)} has no module `{part}`; a network has {', '.join(PARTS)}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        _refuse_unlike(policy)
        _refuse_bad_outputs(policy)


def _refuse_unlike(policy: Policy) -> None:
    """Refuse classes whose `config()` does not make the same again."""
    names = " and ".join(class_path(each) for each in (policy, policy.network) if not is_ours(each))
    fix = f"config() of {names} must return the arguments that its constructor was given"
    try:
        again = build(policy.description())
    except (UserError, NotImplementedError) as error:
        raise UserError(f"a checkpoint could not be loaded: {error}; {fix}") from error
    shapes, wanted = ({name: value.shape for name, value in each.state_dict().items()} for each in (again, policy))
    if shapes != wanted or again.network.config() != policy.network.config():
        raise UserError(f"a checkpoint could not be loaded: what is made by config() is another policy; {fix}")


def _refuse_bad_outputs(policy: Policy) -> None:
    """Refuse outputs of another shape, and those that differ between training and acting, as with dropout."""
    path, (observation, what) = class_path(policy.network), _observation(policy)
    try:
        learning, acting = (_outputs(policy, observation, training) for training in (True, False))
    except Exception as error:  # whatever a class of somebody's own raises
        raise UserError(f"{path} cannot be run on {what}: {described(error)}") from error
    *chunk, dimensions = policy.spaces.decision
    actions, values = math.prod(chunk) * dimensions, math.prod(chunk)
    wanted = ("actor", actions * policy.outputs_per_dimension), ("critic", values * policy.value_scale.outputs)
    for (part, count), found in zip(wanted, learning, strict=True):
        if found.shape != (2, count):
            raise UserError(f"the {part} of {path} gives {[*found.shape]} for {what}, not [2, {count}]")
    if not torch.allclose(learning[0], acting[0], atol=1e-5):
        raise UserError(
            f"the actor of {path} gives other parameters in training than in acting, as with dropout or batch "
            "normalisation: fresh data would have log-ratios; leave such modules out, or take LayerNorm"
        )


def _observation(policy: Policy) -> tuple[Any, str]:
    """Two observations, of which no two numbers are equal, and what they are called."""
    device, spaces = policy.action_low.device, policy.spaces
    if not isinstance(spaces, VLASpaces):
        shape = (2, spaces.observation_size)
        return torch.randn(shape, device=device), f"observations {[*shape]}"
    blank = {name: value.expand(2, *value.shape[1:]).to(device) for name, value in spaces.blank().items()}
    seen = {
        "image": torch.randint_like(blank["image"], 256),
        "state": torch.randn_like(blank["state"]),
        "instruction": blank["instruction"],
    }
    return seen, f"images {[*seen['image'].shape]} and states {[*seen['state'].shape]}"


def _outputs(policy: Policy, observation: Any, training: bool) -> tuple[Tensor, Tensor]:
    """What actor and critic give for N observations; the policy is left as it was."""
    before, kept = policy.training, {name: value.clone() for name, value in policy.state_dict().items()}
    policy.train(training)
    try:
        features = policy.features(observation)
        return policy.network.actor(features), policy.network.critic(features)
    finally:
        policy.train(before)
        policy.load_state_dict(kept)
