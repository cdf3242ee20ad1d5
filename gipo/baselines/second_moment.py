"""A trust region for a batch as a whole: its outliers leave until the second moment of the log-ratio is small."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gipo.objective import Elements, Figures, Terms, masked_mean, require_bound, require_positive
from gipo.objectives import ContextObjective, importance_ratio


@dataclass(frozen=True)
class M2PO(ContextObjective):
    """Second-Moment Trust Policy Optimization: −M·ρ·A, M masks the batch's largest x² (arXiv 2510.01161).

    Candidates are where the step leads further away from μ: A > 0 and x > 0, or A < 0 and x < 0. Of these, those with
    the largest x² are masked until the mean of x² over the candidates that are left is at most τ. All else has w = 1.

    This is Algorithm 1 as its authors' repository shows it. The code beside it clips instead, at the t at which the
    mean of min(x², t²) over the candidates is τ: tighter at the same τ, their .04 cutting where some .015 to .02 does
    here. AReaL takes candidates and others alike. The paper samples no batch twice.

    Args:
        tau: τ, nats²; .04 in the paper.
        log_ratio_bound: upper bound on x where ρ = exp(x) is taken, nats: of bad actions that became likelier.
    """

    tau: float = 0.04
    log_ratio_bound: float = 5.0
    needs_whole_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(self, "tau")
        require_bound(self.log_ratio_bound)

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss and trust weight per element, and the share of the elements that is masked."""
        x, advantage, used, *_ = seen
        candidate = used & (advantage * x.detach() > 0)
        masked = largest_left_out(x.detach() ** 2, candidate, self.tau)
        rho = importance_ratio(x, self.log_ratio_bound)
        weight = (~masked).to(rho.dtype)
        terms = Terms(-weight * rho * advantage, weight, weight * rho.detach())
        return terms, {"weight/masked_share": masked_mean(masked.to(rho.dtype), used)}


def largest_left_out(square: Tensor, candidate: Tensor, most: float) -> Tensor:
    """Which candidates to leave out, the largest first, so that the mean of the others is at most `most`.

    Equal squares leave together. Nothing here waits for the device.

    Args:
        square: not negative, of any shape.
        candidate: bool, of the same shape.
        most: bound on the mean.
    """
    if not square.numel():
        return candidate
    ordered = torch.where(candidate, square, torch.inf).flatten().sort().values
    # the mean of the n smallest, which never falls with n; of equal ones all are in it, or none
    count = torch.arange(1, len(ordered) + 1, device=square.device)
    mean = torch.where(ordered.isfinite(), ordered, 0.0).double().cumsum(0) / count
    whole = torch.cat((ordered[1:] != ordered[:-1], torch.ones_like(candidate.flatten()[:1])))
    largest_kept = torch.where((mean <= most) & whole & ordered.isfinite(), ordered, -1.0).max()
    return candidate & (square > largest_kept)
