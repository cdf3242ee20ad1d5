"""Network bodies: an encoder, an actor head on its features, a critic head on its detached features."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gipo.common.errors import UserError

# In the unit of the observation: a centimetre, half a degree, a hundredth of a quaternion's component. Of what moves by
# less, estimates of how little are mostly noise; a task in other units wants another floor.
OBSERVATION_FLOOR = 0.01

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}
NORMS = ("first", "all", "none")


def convolve_in_single() -> None:
    """Have a GPU convolve in float32, as it multiplies matrices: cuDNN would take TF32, which has ten bits.

    Log-probs are of convolutions too, and are compared with those of whoever acted, perhaps on a CPU.
    """
    torch.backends.cudnn.allow_tf32 = False


class ActorCritic(nn.Module):
    """The three parts every policy is made of.

    `actor` sees `encoder(x)`; `critic` sees the same features detached, so that the value loss never moves
    the encoder and a value-only step never runs the actor.

    Args:
        config: constructor arguments that rebuild the network, beside its sizes; or override the method of this name.
    """

    exportable: ClassVar[bool] = True  # False where it reads words or calls other libraries, which no graph can
    rows_at_once: ClassVar[int] = 2048  # observations that go through it together: what caches, or a GPU, hold
    large: ClassVar[bool] = False  # True where a processor would take seconds to act by it: it acts where it learns
    encoder: nn.Module
    actor: nn.Module
    critic: nn.Module

    def __init__(self, **config: Any):
        super().__init__()
        self._config = config

    def recompute(self) -> None:
        """Keep no activations for the backward pass, which computes them once more: less memory, more time.

        Raises:
            UserError: this network has no means to.
        """
        raise UserError(f"model.recompute=true is for pretrained networks; {type(self).__name__} keeps little anyway")

    def config(self) -> dict[str, Any]:
        """Constructor arguments that rebuild this network, beside its input and output sizes."""
        if not self._config:
            raise NotImplementedError(f"{type(self).__name__} must return its constructor arguments")
        return dict(self._config)


def refuse_other(network: ActorCritic, sizes: object, kind: type) -> None:
    """Refuse a network whose policy does not give it the kind of sizes that it is built from.

    Raises:
        UserError: naming those that are for this policy.
    """
    if not isinstance(sizes, kind):
        numbers = isinstance(sizes, int)
        known = "SeparateNetworks or SharedEncoder" if numbers else "gipo.vla.tiny.TinyVLANetworks or another that sees"
        raise UserError(f"model.policy.network={type(network).__name__} is not for this policy; take {known}")


class SeparateNetworks(ActorCritic):
    """Two MLPs: tanh, LayerNorm on the first layer and a near-zero last actor layer are the default recipe.

    Args:
        inputs: observation size O.
        outputs: size of the actor's output.
        hidden: width of each hidden layer.
        activation: after each hidden layer, `tanh`, `relu` or `silu`.
        norm: hidden layers with a LayerNorm before their activation, `first`, `all` or `none`.
        actor_gain: gain of the orthogonal matrix that the last actor layer starts as: how far the first policy is from
            one that does not look.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (256, 256),
        activation: Literal["tanh", "relu", "silu"] = "tanh",
        norm: Literal["first", "all", "none"] = "first",
        actor_gain: float = 0.01,
    ):
        refuse_other(self, inputs, int)
        hidden = _checked(hidden)
        if activation not in ACTIVATIONS or norm not in NORMS:
            raise UserError(
                f"policy.network needs an activation of {', '.join(ACTIVATIONS)} and a norm of {', '.join(NORMS)}, "
                f"got activation={activation}, norm={norm}"
            )
        if not 0 <= actor_gain < math.inf:
            raise UserError(f"policy.network.actor_gain must be finite and not negative, got {actor_gain}")
        super().__init__(hidden=hidden, activation=activation, norm=norm, actor_gain=actor_gain)
        self.encoder = nn.Identity()
        self.actor = mlp(inputs, hidden, outputs, actor_gain, activation, norm)
        self.critic = mlp(inputs, hidden, 1, 1.0, activation, norm)


class SharedEncoder(ActorCritic):
    """The GIPO authors' MetaWorld network: one shared layer, two heads (ReLU then LayerNorm throughout).

    Args:
        inputs: observation size O.
        outputs: size of the actor's output.
        width: width of the encoder and of the actor's hidden layer.
        critic_width: width of the critic's hidden layer.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 512, critic_width: int = 256):
        refuse_other(self, inputs, int)
        width, critic_width = _checked([width, critic_width])
        super().__init__(width=width, critic_width=critic_width)
        self.encoder = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.LayerNorm(width))
        self.actor = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.LayerNorm(width), Head(width, outputs))
        self.critic = nn.Sequential(
            nn.Linear(width, critic_width), nn.ReLU(), nn.LayerNorm(critic_width), Head(critic_width, 1)
        )


class ObservationNormaliser(nn.Module):
    """Running standardisation (x − mean) / max(std, floor), clamped to ±`bound`, by Chan's parallel update.

    Args:
        size: observation size O.
        bound: clamp on the standardised value, in standard deviations.
        floor: least standard deviation that an observation is divided by, in its own unit. Without one (0) what hardly
            moves is blown up, and every new estimate of how little that is moves the policy.
    """

    mean: Tensor
    m2: Tensor
    count: Tensor
    floor: Tensor

    def __init__(self, size: int, bound: float = 10.0, floor: float = OBSERVATION_FLOOR):
        super().__init__()
        if not 0 <= floor < math.inf:
            raise UserError(f"policy.observation_floor must be finite and not negative, got {floor}")
        self.bound = bound
        # Moments in float64: a running sum of squares loses its low digits in float32 after some 10⁷ frames.
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        # A buffer, so that weights are never read with another floor than they were learned with.
        self.register_buffer("floor", torch.tensor(floor, dtype=torch.float64))
        self._later: list[Tensor] = []

    def update_later(self, observation: Tensor) -> None:
        """Keep observations [..., O] for the next `take`; until then nothing changes."""
        self._later.append(observation.clone())  # a worker may write to their memory meanwhile

    def take(self) -> None:
        """Add what `update_later` kept to the running moments."""
        for observation in self._later:
            self.update(observation)
        self._later.clear()

    @torch.no_grad()
    def update(self, observation: Tensor) -> None:
        """Add observations [..., O] to the running moments."""
        x = observation.reshape(-1, observation.shape[-1]).to(self.mean.dtype)
        if len(x) == 0:
            return
        # δ = x̄ − μ;  μ ← μ + δ·n/(N+n);  M₂ ← M₂ + Σ(x−x̄)² + δ²·Nn/(N+n)
        delta = x.mean(0) - self.mean
        total = self.count + len(x)
        self.mean += delta * (len(x) / total)
        self.m2 += ((x - x.mean(0)) ** 2).sum(0) + delta**2 * (self.count * len(x) / total)
        self.count.copy_(total)

    def scale(self) -> Tensor:
        """Standard deviation [O], at least the floor; 1 where nothing varies: constant features pass as x − mean."""
        std = (self.m2 / self.count.clamp(min=1)).sqrt()
        return torch.where(std > 1e-6, torch.maximum(std, self.floor), torch.ones_like(std))

    def forward(self, observation: Tensor) -> Tensor:
        """Standardised observation, the shape and dtype of `observation`."""
        scale, mean = self.scale().to(observation.dtype), self.mean.to(observation.dtype)
        return ((observation - mean) / scale).clamp(-self.bound, self.bound)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Weights that were learned before there was a floor go on without one.
        state_dict.setdefault(f"{prefix}floor", torch.zeros_like(self.floor))
        super()._load_from_state_dict(state_dict, prefix, *args)


class Head(nn.Linear):
    """The last layer of an actor or a critic, in float32 also where an autocast lowers the products before it.

    Distribution parameters and values are what ratios and targets are compared with: rounded to the eight bits of
    bfloat16 a logit of 5 would be off by .01.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Outputs [..., outputs] of features [..., inputs]."""
        if not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def as_head(layer: nn.Linear) -> Head:
    """The last layer of somebody else's network as a `Head`, with its own weights; nothing is drawn."""
    head = nn.utils.skip_init(Head, layer.in_features, layer.out_features)
    head.weight, head.bias = layer.weight, layer.bias
    return head


class SameEverywhere(nn.Module):
    """One number for each action dimension, whatever is observed; 0 at first.

    Args:
        decision: shape of what a policy decides at once.
    """

    def __init__(self, decision: tuple[int, ...]):
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(decision))

    def forward(self, like: Tensor) -> Tensor:
        """The numbers, once for every row of `like` [..., D], which is finite."""
        # An artifact may hold no operator that blows sizes up, such as Expand.
        return self.raw + 0.0 * like.detach()


def _checked(widths: Sequence[int]) -> list[int]:
    if not widths or min(widths) < 1:
        raise UserError(f"layer widths must be positive integers, got {list(widths)}")
    return [int(width) for width in widths]


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int, last_gain: float, activation: str, norm: str
) -> nn.Sequential:
    """Layers with the options of `SeparateNetworks`; the last starts as an orthogonal matrix of gain `last_gain`."""
    layers: list[nn.Module] = []
    for index, width in enumerate(hidden):
        layers += [_orthogonal(nn.Linear(inputs, width), 2**0.5)]
        layers += [nn.LayerNorm(width)] if norm == "all" or (norm == "first" and index == 0) else []
        layers += [ACTIVATIONS[activation]()]
        inputs = width
    return nn.Sequential(*layers, _orthogonal(Head(inputs, outputs), last_gain))


def _orthogonal(layer: nn.Linear, gain: float) -> nn.Linear:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
