"""What a class of somebody's own must be able to do, found out before a run learns anything with it."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from gipo.common.errors import UserError
from gipo.common.faults import class_path, described, is_ours
from gipo.learning.value_scale import ValueScale
from gipo.policy import Policy, build
from gipo.vla.observations import VLASpaces

PARTS = ("encoder", "actor", "critic")
ROWS = 2  # observations that it is tried with


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
    if lazy := [name for name, value in policy.named_parameters() if nn.parameter.is_lazy(value)]:
        raise UserError(f"{lazy[0]} of {_theirs(policy)} has no shape yet; take a layer that is not lazy")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        again = _made_again(policy)
        _refuse_bad_outputs(policy)
        _refuse_other_parameters(policy)
        _refuse_unlike(policy, again)
        _refuse_bad_figures(policy)


def refuse_unusable_scale(scale: ValueScale) -> None:
    """Refuse a value scale that could not be learned with, or not be made again from its checkpoint; ours are tested.

    Raises:
        UserError: naming the class, and what it lacks.
    """
    if is_ours(scale):
        return
    path, count = class_path(scale), scale.outputs
    if type(count) is not int or count < 1:
        raise UserError(f"{path}.outputs must be how many outputs the critic has for a value, got {count!r}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        outputs, target = torch.randn(ROWS, count), torch.randn(ROWS)
        with _in_one_line(f"{path} cannot be used on outputs {[ROWS, count]}"):
            ours = scale.decode(outputs), scale.loss(outputs, target)
        for name, found in zip(("decode", "loss"), ours, strict=True):
            if _shape(found) != [ROWS]:
                raise UserError(f"{name}() of {path} gives {_shape(found)} for outputs {[ROWS, count]}, not [{ROWS}]")
        _refuse_unplain(scale.config(), path)
        _refuse_no_scalars(scale)
        with torch.enable_grad():
            if not scale.loss(outputs.clone().requires_grad_(), target).requires_grad:
                raise UserError(f"loss() of {path} has no gradient, as under torch.no_grad() or after detach()")
        with _in_one_line(f"{path} cannot be made again by its config()"):
            again = type(scale)(**scale.config())
            again.load_state_dict(scale.state_dict())
            theirs = again.decode(outputs), again.loss(outputs, target)
    if not all(map(_alike, ours, theirs)):
        raise UserError(
            f"a checkpoint would hold another scale than {path}: what is made by its config() gives other values; "
            "config() must return the arguments that its constructor was given, all of them"
        )


def _refuse_no_scalars(scale: ValueScale) -> None:
    path = class_path(scale)
    with _in_one_line(f"{path} cannot give figures"):
        sizes = [torch.as_tensor(figure).numel() for figure in scale.figures().values()]
    if any(size != 1 for size in sizes):
        raise UserError(f"figures() of {path} must give scalar tensors, such as x.mean()")


def _theirs(policy: Policy) -> str:
    """Which classes of a policy are somebody's own."""
    return " and ".join(class_path(each) for each in (policy, policy.network) if not is_ours(each))


def refuse_unlearned(policy: Policy) -> None:
    """Refuse parameters that no optimizer would have, and those that both would; what is frozen nobody learns.

    Raises:
        UserError: naming the parameter.
    """
    if is_ours(policy) and is_ours(policy.network):
        return
    actor, critic = ({id(each) for each in some} for some in (policy.actor_parameters(), policy.critic_parameters()))
    for name, parameter in policy.named_parameters():
        if not parameter.requires_grad:
            continue
        learned = (id(parameter) in actor) + (id(parameter) in critic)
        if learned == 2:
            raise UserError(
                f"{name} of {_theirs(policy)} is learned by the actor and by the critic, whose losses would move it in "
                "turns; what they share is the `encoder`, which the policy's loss alone moves"
            )
        if not learned:
            raise UserError(
                f"nothing learns {name} of {_theirs(policy)}: it must be a part of `encoder`, `actor` or `critic`, or "
                "be among what actor_parameters() of the policy returns"
            )


def _how_to_mend(policy: Policy) -> str:
    return f"config() of {_theirs(policy)} must return the arguments that its constructor was given"


def _made_again(policy: Policy) -> Policy:
    """The policy that a checkpoint would be loaded into: what `config()` makes."""
    fix = _how_to_mend(policy)
    try:
        again = build(policy.description())
    except (UserError, NotImplementedError) as error:
        raise UserError(f"a checkpoint could not be loaded: {error}; {fix}") from error
    shapes, wanted = ({name: value.shape for name, value in each.state_dict().items()} for each in (again, policy))
    if shapes != wanted or again.network.config() != policy.network.config():
        raise UserError(f"a checkpoint could not be loaded: what is made by config() is another policy; {fix}")
    _refuse_unplain(policy.description(), _theirs(policy))
    again.load_state_dict(policy.state_dict())
    return again.to(policy.action_low.device)


def _refuse_unplain(config: Any, whose: str) -> None:
    """Refuse what no checkpoint can be named by, which would be found out when the first is to be written."""
    try:
        json.dumps(config, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"config() of {whose} must return numbers, texts, lists and mappings: {error}") from error


def _refuse_unlike(policy: Policy, again: Policy) -> None:
    """Refuse a policy that acts or values otherwise than the one that `config()` makes, with the same weights."""
    observation, what = _observation(policy)
    noise = policy.noise((ROWS,))
    with _in_one_line(f"{_theirs(policy)} cannot be run on {what}"):
        ours, twice, theirs = (_behaviour(each, observation, noise) for each in (policy, policy, again))
    if not all(map(_alike, ours, twice)):
        raise UserError(
            f"{_theirs(policy)} samples otherwise with the same noise: sample() is a function of the parameters and of "
            "the noise that it is given, so that every sample can be replayed"
        )
    if not all(map(_alike, ours, theirs)):
        raise UserError(
            "a checkpoint would hold another policy: with the same weights, what is made by config() acts otherwise; "
            f"{_how_to_mend(policy)}, all of them"
        )


def _behaviour(policy: Policy, observation: Any, noise: Tensor) -> tuple[Tensor, ...]:
    """Parameters, values, and what is sampled: latent, log-prob, and action as a fraction of the bounds."""
    params, values = _acting(policy, observation)
    latent = policy.sample(params, noise)
    action = (policy.to_env(latent) - policy.action_low) / (policy.action_high - policy.action_low)
    return params, values, latent.float(), policy.log_prob(params, latent), action


def _refuse_bad_figures(policy: Policy) -> None:
    """Refuse figures that are not one for each action dimension, and those by which nothing can be learned."""
    observation, what = _observation(policy)
    noise, wanted = policy.noise((ROWS,)), [ROWS, *policy.spaces.decision]
    with _in_one_line(f"{_theirs(policy)} cannot be run on {what}"), _left_as_it_was(policy, training=True):
        with torch.enable_grad():
            features = policy.features(observation)
            params, values = policy.params_of(features), policy.network.critic(features.detach())
            latent = policy.sample(params.detach(), noise)
            found = {"log_prob": policy.log_prob(params, latent)}
        found |= {"sample": latent, "mode": policy.mode(params), "to_env": policy.to_env(latent)}
        for name, arguments in (("entropy", (params,)), ("kl", (params, params))):
            with suppress(NotImplementedError):  # which an option may ask for, and need not
                found[name] = getattr(policy, name)(*arguments)
    for name, figure in found.items():
        if _shape(figure) != wanted:
            raise UserError(f"{name}() of {class_path(policy)} gives {_shape(figure)} for {what}, not {wanted}")
    for whose, learned in ((f"log_prob() of {_theirs(policy)}", found["log_prob"]),
                           (f"the critic of {class_path(policy.network)}", values)):  # fmt: skip
        if not learned.requires_grad:
            raise UserError(
                f"{whose} has no gradient, as under torch.no_grad() or after detach(): nothing would be learned"
            )


def _refuse_bad_outputs(policy: Policy) -> None:
    """Refuse outputs of another shape than was asked for."""
    path, (observation, what) = class_path(policy.network), _observation(policy)
    with _in_one_line(f"{path} cannot be run on {what}"), _left_as_it_was(policy, training=True):
        features = policy.features(observation)
        outputs = policy.network.actor(features), policy.network.critic(features)
    *chunk, dimensions = policy.spaces.decision
    actions, values = math.prod(chunk) * dimensions, math.prod(chunk)
    wanted = ("actor", actions * policy.outputs_per_dimension), ("critic", values * policy.value_scale.outputs)
    for (part, count), found in zip(wanted, outputs, strict=True):
        if _shape(found) != [ROWS, count]:
            raise UserError(f"the {part} of {path} gives {_shape(found)} for {what}, not [{ROWS}, {count}]")


def _refuse_other_parameters(policy: Policy) -> None:
    """Refuse parameters and values that are no function of the observation alone."""
    observation, what = _observation(policy)
    whose = f"the actor of {class_path(policy.network)}" if is_ours(policy) else class_path(policy)
    with _in_one_line(f"{whose} cannot be run on {what}"):
        acting, again = (_acting(policy, observation) for _ in range(2))
        with _left_as_it_was(policy, training=True):
            learning = policy.params(observation)
        alone = [torch.cat(rows) for rows in zip(*(_acting(policy, row) for row in _rows(observation)), strict=True)]
    if acting[0].isnan().any():
        raise UserError(f"{whose} gives parameters that are not a number, for {what} of a standard normal")
    if not all(map(_alike, acting, again)):
        raise UserError(
            f"{whose} gives other parameters when it is asked for the same observation twice: a policy is a function "
            "of its observation and keeps no state; put what went before into the observation"
        )
    if not _alike(acting[0], learning):
        raise UserError(
            f"{whose} gives other parameters in training than in acting, as with dropout or batch normalisation: "
            "fresh data would have log-ratios; leave such modules out, or take LayerNorm"
        )
    for part, one, both in zip((whose, f"the critic of {class_path(policy.network)}"), alone, acting, strict=True):
        if not torch.allclose(one, both, rtol=1e-3, atol=1e-4, equal_nan=True):  # sums may be rounded otherwise
            raise UserError(
                f"{part} gives an observation other figures alone than beside another one, as with a recurrent layer "
                "that reads the batch as a sequence: a batch is of observations that have nothing to do with each other"
            )


def _observation(policy: Policy) -> tuple[Any, str]:
    """Observations, of which no two numbers are equal, and what they are called."""
    device, spaces = policy.action_low.device, policy.spaces
    if not isinstance(spaces, VLASpaces):
        shape = (ROWS, spaces.observation_size)
        return torch.randn(shape, device=device), f"observations {[*shape]}"
    blank = {name: value.expand(ROWS, *value.shape[1:]).to(device) for name, value in spaces.blank().items()}
    seen = {
        "image": torch.randint_like(blank["image"], 256),
        "state": torch.randn_like(blank["state"]),
        "instruction": blank["instruction"],
    }
    return seen, f"images {[*seen['image'].shape]} and states {[*seen['state'].shape]}"


def _rows(observation: Any) -> list[Any]:
    """Each observation as a batch of its own."""
    if isinstance(observation, Tensor):
        return list(observation.split(1))
    return [{name: value[row : row + 1] for name, value in observation.items()} for row in range(ROWS)]


def _shape(found: Any) -> list[int] | str:
    """That of a tensor; of anything else, what it is."""
    return list(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    return torch.allclose(ours, theirs, atol=1e-5, equal_nan=True)


def _acting(policy: Policy, observation: Any) -> tuple[Tensor, Tensor]:
    """Distribution parameters [N, …, D, P] and what the critic gives [N, …], both as in acting."""
    with _left_as_it_was(policy, training=False):
        features = policy.features(observation)
        return policy.params_of(features), policy.network.critic(features)


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Refuse in one line, which begins with `what`, whatever a class of somebody's own raises within."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{what}: {described(error)}") from error


@contextmanager
def _left_as_it_was(policy: Policy, training: bool) -> Iterator[None]:
    """The policy is in training or not within, and after it what it was before."""
    before, kept = policy.training, {name: value.clone() for name, value in policy.state_dict().items()}
    policy.train(training)
    try:
        yield
    finally:
        policy.train(before)
        policy.load_state_dict(kept)
