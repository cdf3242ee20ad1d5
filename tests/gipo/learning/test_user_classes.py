"""Networks of somebody's own: what they lack is said before a run learns anything with them."""

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from torch import nn

from gipo.common.errors import UserError
from gipo.learning.user_classes import refuse_unusable
from gipo.networks import ActorCritic
from gipo.policies import Spaces, TokenPolicy
from gipo.vla.observations import VLASpaces
from gipo.vla.policies import VLATokenPolicy

IMAGE = (3, 4, 4)
SPACES = Spaces(3, (-1.0, -1.0), (1.0, 1.0))


class Plain(ActorCritic):
    """As docs/extend.md has it."""

    def __init__(self, inputs: int, outputs: int, width: int = 8, values: int = 1):
        super().__init__()
        self.width = width
        self.encoder = nn.Identity()
        self.actor: nn.Module = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))
        self.critic: nn.Module = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, values))

    def config(self) -> dict[str, Any]:
        return {"width": self.width}


class Renamed(Plain):
    def __init__(self, inputs: int, outputs: int, widths: int = 16):
        super().__init__(inputs, outputs, widths)


class Forgetful(Plain):
    def config(self) -> dict[str, Any]:
        return {}


class NoConfig(Plain):
    config = ActorCritic.config


class NoCritic(Plain):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        del self.critic


class WideActor(Plain):
    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs, outputs + 1, width)


class TwoValues(Plain):
    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs, outputs, width, values=2)


class OtherInput(Plain):
    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs + 2, outputs, width)


class Forgets(Plain):
    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs, outputs, width)
        self.actor = nn.Sequential(self.actor, nn.Dropout(0.5))


class Normalises(Plain):
    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs, outputs, width)
        self.actor = nn.Sequential(nn.BatchNorm1d(inputs), self.actor)


class Sees(nn.Module):
    """Pixels and state in a line, through `between`."""

    def __init__(self, spaces: VLASpaces, width: int, between: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(prod(spaces.image_shape) + spaces.state_size, width), between)

    def forward(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        pixels = seen["image"].flatten(-len(IMAGE)) / 255
        return self.layers(torch.cat([pixels, seen["state"]], -1))


class Seeing(ActorCritic):
    """One of a user's own, for chunks of what it sees."""

    between: type[nn.Module] = nn.Tanh

    def __init__(self, spaces: VLASpaces, outputs: int, width: int = 8, more: int = 0, values: int = 3):
        super().__init__(width=width, more=more, values=values)
        self.encoder = Sees(spaces, width, self.between())
        self.actor: nn.Module = nn.Linear(width, prod(spaces.decision) * outputs + more)
        self.critic: nn.Module = nn.Linear(width, values)


class DropsOut(Seeing):
    between = nn.Dropout


def seeing(network: Callable[..., ActorCritic]) -> VLATokenPolicy:
    return VLATokenPolicy(VLASpaces(IMAGE, 2, (-1.0, -1.0), (1.0, 1.0), chunk=3), bins=4, network=network)


def test_one_that_sees_and_is_whole_passes() -> None:
    made = seeing(Seeing)
    state = {name: value.clone() for name, value in made.state_dict().items()}
    refuse_unusable(made)
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (
            lambda s, o: Seeing(s, o, more=1),
            r"the actor of \S+Seeing gives \[2, 25\] for images \[2, 3, 4, 4\] and states \[2, 2\], not \[2, 24\]",
        ),
        (lambda s, o: Seeing(s, o, values=1), r"the critic of \S+Seeing gives \[2, 1\] for images .*, not \[2, 3\]"),
        (DropsOut, r"the actor of \S+DropsOut gives other parameters in training than in acting, as with dropout"),
    ],
)
def test_what_one_that_sees_lacks_is_said(network: Callable[..., ActorCritic], says: str) -> None:
    with pytest.raises(UserError, match=says):
        refuse_unusable(seeing(network))


def policy(network: Callable[..., ActorCritic]) -> TokenPolicy:
    return TokenPolicy(SPACES, bins=4, network=network)


def test_one_that_is_whole_passes_and_draws_nothing_of_the_runs_noise() -> None:
    made = policy(lambda i, o: Plain(i, o, 5))
    state, noise = {name: value.clone() for name, value in made.state_dict().items()}, torch.get_rng_state()
    refuse_unusable(made)
    assert torch.equal(torch.get_rng_state(), noise)
    assert made.training
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (
            Renamed,
            r"could not be loaded: .*unexpected keyword argument.*; config\(\) of \S+Renamed must return",
        ),
        (lambda i, o: Forgetful(i, o, 5), r"what is made by config\(\) is another policy; config\(\) of \S+Forgetful"),
        (NoConfig, r"NoConfig must return its constructor arguments; config\(\) of"),
        (NoCritic, r"NoCritic has no module `critic`; a network has encoder, actor, critic"),
        (WideActor, r"the actor of \S+WideActor gives \[2, 9\] for observations \[2, 3\], not \[2, 8\]"),
        (TwoValues, r"the critic of \S+TwoValues gives \[2, 2\] for observations \[2, 3\], not \[2, 1\]"),
        (OtherInput, r"OtherInput cannot be run on observations \[2, 3\]: RuntimeError"),
        (Forgets, r"the actor of \S+Forgets gives other parameters in training than in acting, as with dropout"),
        (Normalises, r"the actor of \S+Normalises gives other parameters in training than in acting, as with dropout"),
    ],
)
def test_what_it_lacks_is_said(network: Callable[..., ActorCritic], says: str) -> None:
    with pytest.raises(UserError, match=says):
        refuse_unusable(policy(network))
