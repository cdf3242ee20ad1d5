"""Networks of somebody's own: what they lack is said before a run learns anything with them."""

from collections.abc import Callable
from math import prod
from typing import Any

import pytest
import torch
from torch import nn

from gipo.common.errors import UserError
from gipo.learning.user_classes import refuse_unlearned, refuse_unusable, refuse_unusable_scale
from gipo.learning.value_scale import PopArt, SymlogTwoHot, ValueScale
from gipo.module import GIPOModule
from gipo.networks import ActorCritic
from gipo.policies import Spaces, TokenPolicy, build
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


class GivesATuple(Plain):
    """An LSTM gives what it remembers beside its outputs."""

    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs, outputs, width)
        self.actor = nn.LSTM(inputs, outputs)


class Lazy(Plain):
    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs, outputs, width)
        self.actor = nn.LazyLinear(outputs)


class KeepsATensor(Plain):
    def __init__(self, inputs: int, outputs: int, width: Any = 8):
        super().__init__(inputs, outputs, int(width))

    def config(self) -> dict[str, Any]:
        return {"width": torch.tensor(self.width)}


class Detaches(nn.Linear):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(features).detach()


class ActorLearnsNothing(Plain):
    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs, outputs, width)
        self.actor = Detaches(inputs, outputs)


class CriticLearnsNothing(Plain):
    def __init__(self, inputs: int, outputs: int, width: int = 8):
        super().__init__(inputs, outputs, width)
        self.critic = Detaches(inputs, 1)


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


class Leaky(Plain):
    """Leaves out of `config()` what no shape tells."""

    def __init__(self, inputs: int, outputs: int, slope: float = 0.01):
        super().__init__(inputs, outputs)
        self.actor = nn.Sequential(nn.Linear(inputs, 8), nn.LeakyReLU(slope), nn.Linear(8, outputs))

    def config(self) -> dict[str, Any]:
        return {}


class LeakyCritic(Forgetful):
    def __init__(self, inputs: int, outputs: int, slope: float = 0.01):
        super().__init__(inputs, outputs)
        self.critic = nn.Sequential(nn.Linear(inputs, 8), nn.LeakyReLU(slope), nn.Linear(8, 1))


class Centred(nn.Module):
    """Each row less the mean of all."""

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return observation - observation.mean(0)


class MixingCritic(Forgetful):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.critic = nn.Sequential(Centred(), nn.Linear(inputs, 1))


class Roots(nn.Module):
    """Not a number for any observation."""

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        return (-1 - observation.abs()).sqrt()


class NotANumber(Forgetful):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.actor = nn.Sequential(Roots(), nn.Linear(inputs, outputs))


class Shares(Forgetful):
    """Actor and critic have a layer in common that is not the encoder."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        trunk = nn.Linear(inputs, 8)
        self.actor = nn.Sequential(trunk, nn.Linear(8, outputs))
        self.critic = nn.Sequential(trunk, nn.Linear(8, 1))


class FourthPart(Forgetful):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.scale = nn.Parameter(torch.ones(()))


class Sequence(nn.Module):
    """A recurrent layer that takes a batch [N, O] for a sequence."""

    def __init__(self, inputs: int):
        super().__init__()
        self.layer = nn.GRU(inputs, 8)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(observation)[0]
        return found


class Recurrent(Forgetful):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.encoder = Sequence(inputs)
        self.actor, self.critic = nn.Linear(8, outputs), nn.Linear(8, 1)


class Counts(nn.Module):
    """A state that is no buffer."""

    calls = 0

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return observation + self.calls


class Stateful(Forgetful):
    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.encoder = Counts()


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
        (GivesATuple, r"the actor of \S+GivesATuple gives a tuple for observations \[2, 3\], not \[2, 8\]"),
        (WideActor, r"the actor of \S+WideActor gives \[2, 9\] for observations \[2, 3\], not \[2, 8\]"),
        (TwoValues, r"the critic of \S+TwoValues gives \[2, 2\] for observations \[2, 3\], not \[2, 1\]"),
        (OtherInput, r"OtherInput cannot be run on observations \[2, 3\]: RuntimeError"),
        (Forgets, r"the actor of \S+Forgets gives other parameters in training than in acting, as with dropout"),
        (Normalises, r"the actor of \S+Normalises gives other parameters in training than in acting, as with dropout"),
        (
            lambda i, o: Leaky(i, o, 0.9),
            r"with the same weights, what is made by config\(\) acts otherwise; config\(\) of \S+Leaky must return",
        ),
        (lambda i, o: LeakyCritic(i, o, 0.9), r"what is made by config\(\) acts otherwise; config\(\) of \S+LeakyCrit"),
        (MixingCritic, r"the critic of \S+MixingCritic gives an observation other figures alone than beside another"),
        (Lazy, r"network\.actor\.weight of \S+Lazy has no shape yet; take a layer that is not lazy"),
        (KeepsATensor, r"config\(\) of \S+KeepsATensor must return numbers, texts, lists and mappings: .*Tensor"),
        (ActorLearnsNothing, r"log_prob\(\) of \S+ActorLearnsNothing has no gradient, as under torch\.no_grad\(\) or"),
        (CriticLearnsNothing, r"the critic of \S+CriticLearnsNothing has no gradient, as under"),
        (NotANumber, r"the actor of \S+NotANumber gives parameters that are not a number"),
        (Recurrent, r"the actor of \S+Recurrent gives an observation other figures alone than beside another one"),
        (Stateful, r"the actor of \S+Stateful gives other parameters when it is asked for the same observation twice"),
    ],
)
def test_what_it_lacks_is_said(network: Callable[..., ActorCritic], says: str) -> None:
    torch.manual_seed(0)  # weights by which figures differ by more than rounding, as of one in a thousand they do not
    with pytest.raises(UserError, match=says):
        refuse_unusable(policy(network))


class Sharp(TokenPolicy):
    """A policy of a user's own with an option that `config()` leaves out."""

    def __init__(self, spaces: Spaces, temperature: float = 1.0, **options: Any):
        super().__init__(spaces, **options)
        self.temperature = temperature

    def _constrain(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs / self.temperature


class SharpAndKept(Sharp):
    def config(self) -> dict[str, Any]:
        return super().config() | {"temperature": self.temperature}


class OwnParameter(TokenPolicy):
    def __init__(self, spaces: Spaces, **options: Any):
        super().__init__(spaces, **options)
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def _constrain(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs / self.log_temperature.exp()


class OwnAndLearned(OwnParameter):
    def actor_parameters(self) -> list[nn.Parameter]:
        return [*super().actor_parameters(), self.log_temperature]


class Shifts(TokenPolicy):
    """Its parameters are the same when it is made again, and its actions are not."""

    def __init__(self, spaces: Spaces, shift: float = 0.0, **options: Any):
        super().__init__(spaces, **options)
        self.shift = shift

    def to_env(self, latent: torch.Tensor) -> torch.Tensor:
        return super().to_env(latent) + self.shift


class OwnNoise(TokenPolicy):
    def sample(self, params: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return super().sample(params, torch.rand_like(noise))


class DropsLogits(TokenPolicy):
    def __init__(self, spaces: Spaces, **options: Any):
        super().__init__(spaces, **options)
        self.drop = nn.Dropout(0.5)

    def _constrain(self, outputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.drop(outputs)
        return found


class SumsLogProbs(TokenPolicy):
    def log_prob(self, params: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        return super().log_prob(params, latent).sum(-1)


class SumsEntropies(TokenPolicy):
    def entropy(self, params: torch.Tensor) -> torch.Tensor:
        return super().entropy(params).sum(-1)


class WideMode(TokenPolicy):
    def mode(self, params: torch.Tensor) -> torch.Tensor:
        return super().mode(params).unsqueeze(-1)


class KnowsNoKL(TokenPolicy):
    def kl(self, behaviour: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize(
    "made", [SharpAndKept(SPACES, temperature=0.1, bins=4), OwnAndLearned(SPACES, bins=4), KnowsNoKL(SPACES, bins=4)]
)
def test_a_policy_that_says_all_of_itself_passes(made: TokenPolicy) -> None:
    state = {name: value.clone() for name, value in made.state_dict().items()}
    refuse_unusable(made)
    refuse_unlearned(made)
    assert made.training
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())
    again = build(made.description())
    again.load_state_dict(state)
    observation = torch.randn(5, 3)
    torch.testing.assert_close(again.params(observation), made.params(observation), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Sharp(SPACES, temperature=0.1, bins=4), r"acts otherwise; config\(\) of \S+Sharp must return"),
        (Shifts(SPACES, shift=0.5, bins=4), r"acts otherwise; config\(\) of \S+Shifts must return"),
        (OwnNoise(SPACES, bins=4), r"OwnNoise samples otherwise with the same noise: sample\(\) is a function of"),
        (SumsLogProbs(SPACES, bins=4), r"^log_prob\(\) of \S+SumsLogProbs gives \[2\] for .*, not \[2, 2\]$"),
        (SumsEntropies(SPACES, bins=4), r"^entropy\(\) of \S+SumsEntropies gives \[2\] for .*, not \[2, 2\]$"),
        (WideMode(SPACES, bins=4), r"^mode\(\) of \S+WideMode gives \[2, 2, 1\] for .*, not \[2, 2\]$"),
        (DropsLogits(SPACES, bins=4), r"^\S+DropsLogits gives other parameters in training than in acting"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_policy_keeps_to_itself_is_said(made: TokenPolicy, says: str) -> None:
    with pytest.raises(UserError, match=says):
        refuse_unusable(made)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (policy(Shares), r"network.actor.0.weight of \S+Shares is learned by the actor and by the critic"),
        (policy(FourthPart), r"nothing learns network.scale of \S+FourthPart: it must be a part of `encoder`"),
        (OwnParameter(SPACES, bins=4), r"nothing learns log_temperature of \S+OwnParameter: .*actor_parameters\(\)"),
    ],
    ids=["shared", "of no part", "of the policy"],
)
def test_what_nobody_or_everybody_learns_is_said_unless_it_is_frozen(made: TokenPolicy, says: str) -> None:
    refuse_unusable(made)
    with pytest.raises(UserError, match=says):
        refuse_unlearned(made)
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    refuse_unlearned(made)


class Scaled(ValueScale):
    """Values in units of `unit`."""

    def __init__(self, unit: float = 10.0):
        super().__init__()
        self.unit = unit

    def config(self) -> dict[str, Any]:
        return {"unit": self.unit}

    def decode(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.unit * super().decode(outputs)

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().loss(outputs, target / self.unit)


class ForgetsItsUnit(Scaled):
    def config(self) -> dict[str, Any]:
        return {}


class OtherName(Scaled):
    def config(self) -> dict[str, Any]:
        return {"scale": self.unit}


class KeepsTheLast(Scaled):
    def decode(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.unit * outputs


class GivesANumber(Scaled):
    def decode(self, outputs: torch.Tensor) -> torch.Tensor:
        return 1.0  # type: ignore[return-value]


class CountsInWords(Scaled):
    outputs = "three"  # type: ignore[assignment]


class Breaks(Scaled):
    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return target * (1 // 0)


class LearnsNothing(Scaled):
    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().loss(outputs, target).detach()


class ManyFigures(Scaled):
    def figures(self) -> dict[str, torch.Tensor]:
        return {"mine": torch.ones(3)}


class FiguresOfNothing(Scaled):
    def figures(self) -> dict[str, torch.Tensor]:
        return None  # type: ignore[return-value]


class KeepsItsUnitAsATensor(Scaled):
    def config(self) -> dict[str, Any]:
        return {"unit": torch.tensor(self.unit)}


class OwnPopArt(PopArt):
    pass


class OwnBins(SymlogTwoHot):
    pass


def test_a_value_scale_of_ones_own_is_learned_with() -> None:
    state = torch.get_rng_state()
    for scale in (Scaled(3.0), OwnPopArt(), OwnBins(bins=7)):
        refuse_unusable_scale(scale)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (ForgetsItsUnit(3.0), r"another scale than .*ForgetsItsUnit: .* config\(\) must return the arguments"),
        (OtherName(), r"OtherName cannot be made again by its config\(\): .*scale"),
        (GivesANumber(), r"decode\(\) of .*GivesANumber gives a float for outputs \[2, 1\], not \[2\]"),
        (CountsInWords(), r"CountsInWords\.outputs must be how many outputs .*, got 'three'"),
        (LearnsNothing(), r"^loss\(\) of .*LearnsNothing has no gradient, as under torch\.no_grad\(\) or after"),
        (ManyFigures(), r"^figures\(\) of .*ManyFigures must give scalar tensors, such as x\.mean\(\)$"),
        (FiguresOfNothing(), r"FiguresOfNothing cannot give figures: AttributeError"),
        (KeepsItsUnitAsATensor(), r"^config\(\) of .*KeepsItsUnitAsATensor must return numbers, texts, lists"),
        (Breaks(), r"Breaks cannot be used on outputs \[2, 1\]: ZeroDivisionError in loss"),
        (KeepsTheLast(), r"decode\(\) of .*KeepsTheLast gives \[2, 1\] for outputs \[2, 1\], not \[2\]"),
    ],
)
def test_a_value_scale_that_could_not_be_used_is_refused(scale: ValueScale, said: str) -> None:
    with pytest.raises(UserError, match=said):
        refuse_unusable_scale(scale)


def test_a_run_tries_the_value_scale_that_it_is_given() -> None:
    assert GIPOModule(value_scale=lambda: Scaled(3.0)).build_policy(SPACES).value_scale.config() == {"unit": 3.0}
    with pytest.raises(UserError, match="another scale than"):
        GIPOModule(value_scale=lambda: ForgetsItsUnit(3.0)).build_policy(SPACES)
