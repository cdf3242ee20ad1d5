"""What a critic's outputs mean: values as they are, values that are standardised, or a distribution over bins.

Rewards have any unit, and returns grow by two orders of magnitude while a policy learns; a network that has to follow
them moves best around 0 and 1. Whatever the scale, `decode` gives values in the unit of the rewards, which is what
advantages are computed with, and targets are in that unit too: so buffers hold nothing that a scale could outdate.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gipo.common.errors import UserError
from gipo.distributed import ranks
from gipo.networks import Head

STD_FLOOR = 1e-4  # of value targets that are all but constant, such as those before the first success


class ValueScale(nn.Module):
    """Values as they are: an output is a value, and its loss the squared error.

    Shapes: outputs [..., `outputs`]; values, targets and losses [...].
    """

    outputs = 1  # that the critic gives for one value

    def config(self) -> dict[str, Any]:
        """Arguments from which a scale of the same kind is made anew."""
        return {}

    def attach(self, critic: nn.Module, learned: bool) -> None:
        """Make a critic ready, whose outputs so far are values as they are if it has `learned` anything."""

    def learn(self, critic: nn.Module, target: Tensor, used: Tensor) -> None:
        """Take notice of the targets [...] of an iteration that are `used`, before the critic learns from them."""

    def decode(self, outputs: Tensor) -> Tensor:
        """Values of the critic's outputs."""
        return outputs.squeeze(-1)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Losses of the critic's outputs."""
        return functional.mse_loss(outputs.squeeze(-1), target, reduction="none")

    def figures(self) -> dict[str, Tensor]:
        """Scalars to log, by name."""
        return {}


class Standardised(ValueScale):
    """Values standardised by running moments of their targets: V = μ + σ·output.

    Updates are then the same whatever the unit of the rewards. Before the first targets every value is 0.

    Args:
        rate: weight of an iteration's moments in the running ones. All iterations weigh the same at first, until they
            are 1/rate.
    """

    preserving = False  # whether values stay what they are when the moments move
    mean: Tensor
    std: Tensor
    count: Tensor

    def __init__(self, rate: float = 0.1):
        super().__init__()
        if not 0 < rate <= 1:
            raise UserError(f"value_scale.rate must lie in (0, 1], got {rate}")
        self.rate = rate
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def config(self) -> dict[str, Any]:
        """Arguments from which a scale of the same kind is made anew."""
        return {"rate": self.rate}

    def attach(self, critic: nn.Module, learned: bool) -> None:
        """Begin with values of 0, or with those that a critic has `learned`.

        Raises:
            UserError: the critic does not end in a linear layer.
        """
        _last_layer(critic)
        self.std.fill_(float(learned))

    @torch.no_grad()
    def learn(self, critic: nn.Module, target: Tensor, used: Tensor) -> None:
        """Move the moments towards those of the targets [...] that are `used`, of all learners together."""
        found = ranks.mean_and_std(target.flatten(), (used & target.isfinite()).flatten())
        old = float(self.mean), float(self.std)
        mean, std = (float(moment) for moment in found)
        if math.isnan(mean):  # nothing was used
            return
        self.count += 1
        rate = min(1.0, self.rate / (1 - (1 - self.rate) ** int(self.count)))
        # μ' = μ + β·δ;  σ'² = (1 − β)·σ² + β·s² + β(1 − β)·δ²
        delta = mean - old[0]
        variance = (1 - rate) * old[1] ** 2 + rate * std**2 + rate * (1 - rate) * delta**2
        self.mean.fill_(old[0] + rate * delta)
        self.std.fill_(max(math.sqrt(variance), STD_FLOOR))
        if old[1] > 0 and (self.preserving or int(self.count) == 1):
            _rescale(_last_layer(critic)[1], old, (float(self.mean), float(self.std)))

    def decode(self, outputs: Tensor) -> Tensor:
        """Values μ + σ·output."""
        return self.mean + self.std * outputs.squeeze(-1)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Squared errors in standard deviations: (output − (target − μ)/σ)²."""
        return functional.mse_loss(outputs.squeeze(-1), (target - self.mean) / self.std, reduction="none")

    def figures(self) -> dict[str, Tensor]:
        """The moments, in the unit of the rewards that advantages are computed from."""
        return {"value/mean": self.mean.clone(), "value/std": self.std.clone()}


class PopArt(Standardised):
    """Standardised values that stay what they are when the moments move: the last layer moves along (arXiv 1602.07714).

    Args:
        rate: as `Standardised`; a new estimate disturbs nothing, so it may be taken fast.
    """

    preserving = True

    def __init__(self, rate: float = 0.1):
        super().__init__(rate)


class Expectile(ValueScale):
    """Values that lean towards the better of what may follow: expectiles, as IQL learns them (arXiv 2110.06169, eq. 5).

    With one-step targets r + γV(s'), `data.estimator.lam=0`, it is IQL's critic without a network for Q: where the
    same action leads to the same state, as in a simulator, Q(s, a) is r + γV(s') itself. Where chance decides what
    follows, it takes luck for skill (arXiv 2307.11949).

    Args:
        tau: which expectile; .5 is the mean, towards 1 it is the best that the data hold.
    """

    def __init__(self, tau: float = 0.7):
        super().__init__()
        if not 0 < tau < 1:
            raise UserError(f"value_scale.tau must lie in (0, 1), got {tau}")
        self.tau = tau

    def config(self) -> dict[str, Any]:
        """Arguments from which a scale of the same kind is made anew."""
        return {"tau": self.tau}

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """|τ − 1[u < 0]|·u² of what a target is above the value, u."""
        above = target - outputs.squeeze(-1)
        return torch.where(above > 0, self.tau, 1 - self.tau) * above**2


class SymlogTwoHot(ValueScale):
    """A categorical over bins that are evenly spaced in symlog(V) = sign(V)·log(1 + |V|), learned by cross-entropy.

    A target is two-hot: shared by the two bins beside it, so that their mean is the target (arXiv 2301.04104). The
    value is symexp of the mean bin. All values are 0 at first.

    Args:
        bins: of the categorical.
        limit: of symlog(V): bins go from −limit to limit. 10 is a value of 22 025 (arXiv 2310.16828).
    """

    support: Tensor

    def __init__(self, bins: int = 101, limit: float = 10.0):
        super().__init__()
        if bins < 2 or not 0 < limit <= 80:  # e⁸⁰ is finite in float32
            raise UserError(f"value_scale needs bins of at least 2 and a limit in (0, 80], got {bins} and {limit}")
        self.outputs, self.limit = bins, limit
        self.register_buffer("support", torch.linspace(-limit, limit, bins), persistent=False)

    def config(self) -> dict[str, Any]:
        """Arguments from which a scale of the same kind is made anew."""
        return {"bins": self.outputs, "limit": self.limit}

    def attach(self, critic: nn.Module, learned: bool) -> None:
        """Let the critic's last layer give the logits of bins in place of each value; they begin equal.

        Raises:
            UserError: the critic does not end in a linear layer.
        """
        name, layer = _last_layer(critic)
        wide = Head(layer.in_features, layer.out_features * self.outputs).to(layer.weight.device)
        for parameter in wide.parameters():
            nn.init.zeros_(parameter)
        critic.set_submodule(name, wide)

    def decode(self, outputs: Tensor) -> Tensor:
        """Values symexp(Σ p_k·b_k) of logits."""
        return symexp((outputs.softmax(-1) * self.support).sum(-1))  # a product of matrices would be of ten bits

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of two-hot targets; those beyond the bins count as the outermost."""
        low, share = self.two_hot(target)
        log_p = outputs.log_softmax(-1)
        below, above = (log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1) for index in (low, low + 1))
        return -((1 - share) * below + share * above)

    def two_hot(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the bin below each value, and the share in [0, 1] of the bin above it."""
        place = (symlog(value).clamp(-self.limit, self.limit) + self.limit) * ((self.outputs - 1) / (2 * self.limit))
        low = place.nan_to_num().floor().clamp(max=self.outputs - 2)  # what is not a number stays one in the share
        return low.long(), place - low


ValueScaleFactory = Callable[[], ValueScale]


def symlog(x: Tensor) -> Tensor:
    """sign(x)·log(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """sign(x)·(e^|x| − 1), the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def _last_layer(critic: nn.Module) -> tuple[str, nn.Linear]:
    """Name and module of the linear layer that a critic ends in."""
    found = [(name, layer) for name, layer in critic.named_modules() if name and isinstance(layer, nn.Linear)]
    if not found:
        raise UserError(
            f"model.value_scale needs a critic that ends in a torch.nn.Linear of its own; {type(critic).__name__} has "
            "none: leave value_scale out, or put one there"
        )
    return found[-1]


def _rescale(layer: nn.Linear, old: tuple[float, float], new: tuple[float, float]) -> None:
    """Change the last layer so that μ' + σ'·output' is μ + σ·output, of moments (μ, σ)."""
    (mean, std), (next_mean, next_std) = old, new
    # w' = w·σ/σ';  b' = (σ·b + μ − μ')/σ'
    layer.weight.mul_(std / next_std)
    layer.bias.mul_(std / next_std).add_((mean - next_mean) / next_std)
