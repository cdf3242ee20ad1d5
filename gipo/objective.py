"""The contract of policy objectives, and how one is applied to a batch.

Notation, with shapes that broadcast against each other (usually x: [B, D], A: [B, 1]):

    x = log ρ = log π_θ(a|s) − log μ(a|s)    log-ratio to the behaviour policy μ, nats, per action dimension
    A                                        advantage, shared by the dimensions of a transition
    w                                        trust weight; the gradient of every loss here is −w·ρ·A·∇x
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gipo.common.errors import UserError

MAX_LOG_RATIO_BOUND = 40.0  # exp(2·40), a squared contribution, is still finite in float32
SMALLEST, LARGEST = 1e-6, 1e6  # widths and temperatures that stay neither 0 nor inf in float32


class Terms(NamedTuple):
    """Per element: loss to minimise, trust weight w, and contribution u = w·ρ, the size of the gradient −u·A·∇x."""

    loss: Tensor
    weight: Tensor
    contribution: Tensor


Figures = dict[str, Tensor]  # scalars on their device, by the name under which they are logged


class Objective(ABC):
    """A policy objective: a pure function of log-ratio and advantage, its parameters as fields."""

    needs_entropy: ClassVar[bool] = False  # whether `on_batch` must be given the behaviour entropy

    needs_behaviour: ClassVar[bool] = True  # whether x must be a ratio to the policy that acted

    needs_whole_batch: ClassVar[bool] = False  # whether a transition is weighed by others, which ranks do not share

    @abstractmethod
    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Terms per element, from finite x and A of shapes that broadcast."""

    def on_batch(
        self, log_ratio: Tensor, advantage: Tensor, used: Tensor, entropy: Tensor | None = None
    ) -> tuple[Terms, Figures]:
        """Terms per element of a batch, and figures of it to log.

        To override where elements are not weighed one by one.

        Args:
            log_ratio: x, finite.
            advantage: A, finite.
            used: bool, of the shape of x; False where x = 0 and A = 0 stand for an element that is left out.
            entropy: of the behaviour policy as a fraction of its maximum log V, of the shape of x; None where unknown.
        """
        return self(log_ratio, advantage), {}


class PolicyLoss(NamedTuple):
    """Mean loss over the usable elements; trust weight, contribution and usability of each; figures of the batch."""

    loss: Tensor
    weight: Tensor
    contribution: Tensor
    used: Tensor
    figures: Figures


def policy_loss(
    objective: Objective,
    log_ratio: Tensor,
    advantage: Tensor,
    valid: Tensor | None = None,
    entropy: Tensor | None = None,
) -> PolicyLoss:
    """Mean of `objective` over the elements that are valid and finite, in float32 under any autocast.

    Args:
        objective: per-element loss.
        log_ratio: x [B, D], nats; −inf, inf and NaN are masked, never averaged in.
        advantage: A [B].
        valid: [B] bool; False where the policy did not choose the action.
        entropy: behaviour entropy H(μ)/log V [B, D]; only for an objective that needs it.

    Raises:
        UserError: the objective needs an entropy and there is none.
    """
    log_ratio, advantage = log_ratio.float(), advantage.float().unsqueeze(-1)
    used = torch.isfinite(log_ratio) & torch.isfinite(advantage)
    if valid is not None:
        used = used & valid.unsqueeze(-1)
    terms, figures = masked_terms(objective, log_ratio, advantage, used, entropy)
    return PolicyLoss(masked_mean(terms.loss, used), terms.weight, terms.contribution, used, figures)


def masked_terms(
    objective: Objective, log_ratio: Tensor, advantage: Tensor, used: Tensor, entropy: Tensor | None = None
) -> tuple[Terms, Figures]:
    """What `objective` says of a batch; no gradient, but finite figures, where not `used`. As `policy_loss`."""
    found = objective.on_batch(torch.where(used, log_ratio, 0.0), torch.where(used, advantage, 0.0), used, entropy)
    terms = found[0]
    if not (isinstance(terms, Terms) and all(part.shape == log_ratio.shape for part in terms)):
        path = f"{type(objective).__module__}.{type(objective).__qualname__}"
        raise UserError(
            f"{path} must return Terms whose three tensors have the shape {[*log_ratio.shape]} of log_ratio"
        )
    return found


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; 0 when nothing is left."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def require_positive(objective: object, *names: str) -> None:
    """Refuse widths and temperatures that are not positive, or that float32 turns into 0 or infinity.

    Raises:
        UserError: naming the field.
    """
    for name in names:
        value = getattr(objective, name)
        if not SMALLEST <= value <= LARGEST:
            raise UserError(f"{type(objective).__name__}.{name} must lie in [{SMALLEST:g}, {LARGEST:g}], got {value}")


def require_bound(bound: float) -> None:
    """Refuse a bound on log-contributions at which their squares could overflow.

    Raises:
        UserError: naming the range.
    """
    if not 0 < bound <= MAX_LOG_RATIO_BOUND:
        raise UserError(f"log_ratio_bound must lie in (0, {MAX_LOG_RATIO_BOUND}], got {bound}")
