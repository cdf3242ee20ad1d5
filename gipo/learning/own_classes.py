"""What a policy or network of somebody's own must be able to do, found out before a run learns anything with it."""

import torch
from torch import Tensor, nn

from gipo.common.errors import UserError
from gipo.common.faults import described
from gipo.policy import Policy, Spaces, build, class_path

PARTS = ("encoder", "actor", "critic")


def refuse_unusable(policy: Policy) -> None:
    """Refuse a policy that could not be learned with, or not be made again from its checkpoint; ours are tested.

    Raises:
        UserError: naming the class, and what it lacks.
    """
    network = policy.network
    if all(class_path(each).startswith("gipo.") for each in (policy, network)):
        return
    for part in PARTS:
        if not isinstance(getattr(network, part, None), nn.Module):
            raise UserError(f"{class_path(network)} has no module `{part}`; a network has {', '.join(PARTS)}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        _refuse_unlike(policy)
        if type(policy.spaces) is Spaces:  # of one that sees more, its policy says how
            _refuse_bad_outputs(policy)


def _refuse_unlike(policy: Policy) -> None:
    """Refuse classes whose `config()` does not make the same again."""
    names = " and ".join(each for each in (class_path(policy), class_path(policy.network)) if each[:5] != "gipo.")
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
    path, size = class_path(policy.network), policy.spaces.observation_size
    observation = torch.randn(2, size, device=policy.action_low.device)
    try:
        learning, acting = (_outputs(policy, observation, training) for training in (True, False))
    except Exception as error:  # whatever a class of somebody's own raises
        raise UserError(f"{path} cannot be run on observations [2, {size}]: {described(error)}") from error
    wanted = ("actor", policy.action_size * policy.outputs_per_dimension), ("critic", policy.value_scale.outputs)
    for (part, count), found in zip(wanted, learning, strict=True):
        if found.shape != (2, count):
            raise UserError(
                f"the {part} of {path} gives {[*found.shape]} for observations [2, {size}], not [2, {count}]"
            )
    if not torch.allclose(learning[0], acting[0], atol=1e-5):
        raise UserError(
            f"the actor of {path} gives other parameters in training than in acting, as with dropout or batch "
            "normalisation: fresh data would have log-ratios; leave such modules out, or take LayerNorm"
        )


def _outputs(policy: Policy, observation: Tensor, training: bool) -> tuple[Tensor, Tensor]:
    """What actor and critic give for observations [N, O]; the policy is left as it was."""
    before, kept = policy.training, {name: value.clone() for name, value in policy.state_dict().items()}
    policy.train(training)
    try:
        features = policy.features(observation)
        return policy.network.actor(features), policy.network.critic(features)
    finally:
        policy.train(before)
        policy.load_state_dict(kept)
