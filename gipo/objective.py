"""The contract of policy objectives, and how one is applied to a batch.

Notation, with shapes that broadcast against each other (usually x: [N, D], A: [N, 1]):

    x = log ρ = log π_θ(a|s) − log μ(a|s)    log-ratio to the behaviour policy μ, nats, per action dimension
    A                                        advantage, shared by the dimensions of a transition
    k                                        age: policy versions between μ and π
    w                                        trust weight; the gradient of every loss here is −w·ρ·A·∇x
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.common.faults import class_path

MAX_LOG_RATIO_BOUND = 40.0  # exp(2·40), a squared contribution, is still finite in float32
SMALLEST, LARGEST = 1e-6, 1e6  # widths and temperatures that stay neither 0 nor inf in float32


class Terms(NamedTuple):
    """Per element: loss to minimise, trust weight w, and contribution u = w·ρ, the size of the gradient −u·A·∇x."""

    loss: Tensor
    weight: Tensor
    contribution: Tensor


Figures = dict[str, Tensor]  # scalars on their device, by the name under which they are logged

NEEDED = {  # what an objective may ask for, and where it comes from
    "age": "the age of the data in policy versions: only data that say which version acted have one",
    "entropy": "the behaviour entropy of each action dimension: set data.store_params=true",
    "log_prob": "the probability of a token, and a density is none: set model.policy=TokenPolicy",
}


class Elements(NamedTuple):
    """What an objective sees of a batch: an element is one action dimension of one sample.

    Shapes broadcast against that of x: [N, D] is by element, [N, 1] by sample. Only x has a gradient.

    Attributes:
        log_ratio: x [N, D], nats, finite.
        advantage: A [N, 1], finite.
        used: [N, D] bool; False where x = 0 and A = 0 stand for an element that is left out.
        age: k [N, 1], not negative; None where it is unknown.
        entropy: of the behaviour policy as a fraction of its maximum log V [N, D]; None where it is unknown.
        log_prob: log π(a|s) [N, D] of tokens, nats; None where π is a density.
        steps: H, the samples in a row that are the steps of one action chunk; 1 without chunks.
        memory: what the objective remembers of earlier batches [M]; None where it remembers nothing.
    """

    log_ratio: Tensor
    advantage: Tensor
    used: Tensor
    age: Tensor | None = None
    entropy: Tensor | None = None
    log_prob: Tensor | None = None
    steps: int = 1
    memory: Tensor | None = None


class Objective(ABC):
    """A policy objective: a pure function of what it sees, its parameters as fields.

    One that weighs every element by its log-ratio and advantage is its `__call__`. One that sees more derives from
    `gipo.objectives.ContextObjective` and is its `on_batch`.
    """

    needs: ClassVar[frozenset[str]] = frozenset()  # of NEEDED, those that `on_batch` cannot do without

    needs_behaviour: ClassVar[bool] = True  # whether x must be a ratio to the policy that acted

    needs_whole_batch: ClassVar[bool] = False  # whether a transition is weighed by others, which ranks do not share

    @abstractmethod
    def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
        """Terms per element, from finite x and A of shapes that broadcast."""

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Terms per element of a batch, of the shape of x, and figures of it to log."""
        return self(seen.log_ratio, seen.advantage), {}

    def memory(self) -> Tensor | None:
        """State before the first batch [M], which whoever trains with the objective keeps and saves; None for none."""
        return None

    def remember(self, seen: Elements) -> Tensor | None:
        """`seen.memory` [M] after this batch. Averaged over its parts, by their samples, it is that of the whole."""
        return seen.memory


class PolicyLoss(NamedTuple):
    """Mean loss over the usable elements; weight, contribution and usability of each; figures; what is remembered."""

    loss: Tensor
    weight: Tensor
    contribution: Tensor
    used: Tensor
    figures: Figures
    memory: Tensor | None = None


def policy_loss(
    objective: Objective,
    log_ratio: Tensor,
    advantage: Tensor,
    valid: Tensor | None = None,
    entropy: Tensor | None = None,
    age: Tensor | None = None,
    **known: Any,
) -> PolicyLoss:
    """Mean of `objective` over the elements that are valid and finite, in float32 under any autocast.

    Args:
        objective: per-element loss.
        log_ratio: x [N, D], nats; −inf, inf and NaN are masked, never averaged in.
        advantage: A [N].
        valid: [N] bool; False where the policy did not choose the action.
        entropy: behaviour entropy H(μ)/log V [N, D]; only for an objective that needs it.
        age: k [N], versions; NaN where unknown, for an objective that reads ages only where not `valid`.
        known: further fields of `Elements`; without `memory` it is that before the first batch.

    Raises:
        UserError: the objective needs what nobody knows here.
    """
    if known.get("memory") is None:
        known["memory"] = first_memory(objective, log_ratio.device)
    log_ratio, advantage = log_ratio.float(), advantage.float().unsqueeze(-1)
    used = torch.isfinite(log_ratio) & torch.isfinite(advantage)
    if valid is not None:
        used = used & valid.unsqueeze(-1)
    age = None if age is None else age.unsqueeze(-1)
    seen = blanked(Elements(log_ratio, advantage, used, since(age, log_ratio), entropy, **known))
    terms, figures = masked_terms(objective, seen)
    loss = masked_mean(terms.loss, used)
    return PolicyLoss(loss, terms.weight, terms.contribution, used, figures, remembered(objective, seen, age))


def since(age: Tensor | None, like: Tensor) -> Tensor | None:
    """Versions since a sample acted [N, 1], as `like`: 0 of what a later one than the learner's did, and where unknown.

    Whose age is unknown is left out by the objectives that read it.
    """
    return None if age is None else age.to(like.dtype).nan_to_num(0.0, 0.0).clamp(min=0)


def first_memory(objective: Objective, device: torch.device | None = None) -> Tensor | None:
    """What an objective remembers before its first batch [M]; None where it remembers nothing.

    Raises:
        UserError: its `memory` gives no tensor.
    """
    found = objective.memory()
    if found is None or isinstance(found, Tensor):
        return None if found is None else found.detach().clone().to(device)
    raise UserError(
        f"{class_path(objective)}.memory must return a tensor, such as torch.zeros(1), or None; got {found!r}"
    )


def remembered(objective: Objective, seen: Elements, age: Tensor | None) -> Tensor | None:
    """What an objective remembers of a batch, all that later versions than the learner's did aside.

    That is as far away as old data, and of no age: a slope over ages would bend down to nothing.

    Args:
        objective: with its memory in `seen`.
        seen: the batch.
        age: k [N, 1], versions, as the data have it; negative of a later version.

    Raises:
        UserError: when that is of another shape than its memory.
    """
    found = objective.remember(seen if age is None else seen._replace(used=seen.used & (age >= 0)))
    memory = seen.memory
    if found is None:
        return None
    if isinstance(found, Tensor) and memory is not None and found.shape == memory.shape:
        return found.detach()  # what is remembered of x must not lead back into the batch it was of
    raise UserError(
        f"{class_path(objective)}.remember must return a tensor of the shape of memory(), or None where it has none"
    )


def blanked(seen: Elements) -> Elements:
    """The elements with x = 0, A = 0 and log π = 0 where they are not used: no gradient, and finite figures."""
    log_prob = None if seen.log_prob is None else torch.where(seen.used, seen.log_prob.detach(), 0.0)
    return seen._replace(
        log_ratio=torch.where(seen.used, seen.log_ratio, 0.0),
        advantage=torch.where(seen.used, seen.advantage, 0.0),
        log_prob=log_prob,
    )


def masked_terms(objective: Objective, seen: Elements) -> tuple[Terms, Figures]:
    """What `objective` says of elements that are `blanked`.

    Raises:
        UserError: it needs what is not known, gives terms of another shape than x or of another kind than numbers, a
            loss without gradient, or figures that are no scalars by name.
    """
    path = class_path(objective)
    for name in sorted(objective.needs):
        if name not in NEEDED:
            raise UserError(f"{path}.needs names {name!r}; an objective may need {', '.join(NEEDED)}")
        if getattr(seen, name) is None:
            raise UserError(f"{type(objective).__name__} needs {NEEDED[name]}")
    found = objective.on_batch(seen)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        raise UserError(f"{path}.on_batch must return Terms and a dict of figures, which may be empty")
    (terms, figures), shape = found, seen.log_ratio.shape
    if not (isinstance(terms, Terms) and all(isinstance(part, Tensor) and part.shape == shape for part in terms)):
        raise UserError(f"{path} must return Terms whose three tensors have the shape {[*shape]} of log_ratio")
    if not all(part.is_floating_point() for part in terms):
        kinds = ", ".join(str(part.dtype).removeprefix("torch.") for part in terms)
        raise UserError(f"{path} must return Terms of floating point, such as mask.to(rho.dtype); got {kinds}")
    if seen.log_ratio.requires_grad and not terms.loss.requires_grad:
        raise UserError(f"the loss of {path} has no gradient: nothing in it depends on log_ratio, or it is detached")
    named = all(isinstance(name, str) for name in figures)
    if not (named and all(isinstance(figure, Tensor) and figure.ndim == 0 for figure in figures.values())):
        raise UserError(f"{path} must return figures that are scalar tensors, such as x.mean(), by names that are text")
    return found


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; 0 when nothing is left."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def reads_behaviour(objective: Objective, kl_coef: float) -> bool:
    """Whether the objective, or an anchor KL(μ‖π) of this weight, reads log-probs of the policy that acted."""
    return objective.needs_behaviour or kl_coef > 0


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
