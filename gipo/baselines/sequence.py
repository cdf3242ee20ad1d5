"""Ratios of a sequence: of all action dimensions of a step, or of a chunk of steps, in place of each on its own.

Where the sources have one token of a response, here is one action dimension; where they have the response, here is the
step that was decided at once. Four dimensions are a far shorter sequence than a response of a thousand tokens, so that
the clips of the sources, which are of means over so many, are tight here.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.objective import MAX_LOG_RATIO_BOUND, Elements, Figures, Terms, require_bound, require_positive
from gipo.objectives import ContextObjective, attach_gradient, by_sign, with_slope


def over_sequence(values: Tensor, seen: Elements, chunk: bool) -> tuple[Tensor, Tensor]:
    """Sum of `values` [N, D] over the used elements of each one's sequence, and their count, [N, D] both.

    Args:
        values: [N, D].
        seen: says what is used, and how long a chunk is.
        chunk: a sequence is a whole chunk, not a step of it.
    """
    found = torch.stack((torch.where(seen.used, values, 0.0), seen.used.to(values.dtype)))
    if not chunk or seen.steps == 1:
        total, count = found.sum(-1, keepdim=True).expand_as(found)
        return total, count
    chunks = found.unflatten(-2, (-1, seen.steps))  # [2, N/H, H, D]
    total, count = chunks.sum((-2, -1), keepdim=True).expand_as(chunks).flatten(-3, -2)
    return total, count


def sequence_mean(values: Tensor, seen: Elements, chunk: bool) -> Tensor:
    """Mean of `values` [N, D] over the used elements of each one's sequence [N, D]; 0 where there are none."""
    total, count = over_sequence(values, seen, chunk)
    return total / count.clamp(min=1)


def reported_weight(contribution: Tensor, log_ratio: Tensor, bound: float) -> Tensor:
    """w = u/ρ of contributions in which the element's own ρ is one of many, at most exp(2·`bound`)."""
    return (contribution.log() - log_ratio.detach()).clamp(max=2 * bound).exp()


@dataclass(frozen=True)
class VESPO(ContextObjective):
    """Variational Sequence-Level Soft Policy Optimization: −sg(φ(W))·A·log π (arXiv 2602.10693).

    With W = exp(Σx) the ratio of the sequence, φ(W) = e^λ·Wᵏ·e^(−λW): 1 on policy, at most e^(λ−k)·(k/λ)ᵏ at W = k/λ,
    and falling to 0 on both sides. Form and settings are those of the authors' listing and code: k = 2, λ = 3 where
    A > 0, and k = 3, λ = 2 where A < 0.

    Args:
        k_pos: k where A > 0.
        lambda_pos: λ where A > 0.
        k_neg: k elsewhere.
        lambda_neg: λ elsewhere.
        chunk: the sequence is a whole chunk of actions, not a step of it.
        log_ratio_bound: the weight φ/ρ is reported as at most exp(2·`log_ratio_bound`).
    """

    k_pos: float = 2.0
    lambda_pos: float = 3.0
    k_neg: float = 3.0
    lambda_neg: float = 2.0
    chunk: bool = False
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "k_pos", "lambda_pos", "k_neg", "lambda_neg")
        require_bound(self.log_ratio_bound)
        for name, k, rate in (("pos", self.k_pos, self.lambda_pos), ("neg", self.k_neg, self.lambda_neg)):
            # at W = k/λ:  max log φ = λ − k + k·log(k/λ)
            peak = rate - k + k * math.log(k / rate)
            if peak > MAX_LOG_RATIO_BOUND:
                raise UserError(
                    f"VESPO.k_{name}={k} and lambda_{name}={rate} weigh a sample by up to exp({peak:.0f}), which "
                    f"float32 cannot square; bring them closer, to at most exp({MAX_LOG_RATIO_BOUND:g})"
                )

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss and trust weight per element: all dimensions of a sequence share φ."""
        k = by_sign(seen.advantage, self.k_pos, self.k_neg)
        rate = by_sign(seen.advantage, self.lambda_pos, self.lambda_neg)
        log_w, _ = over_sequence(seen.log_ratio.detach(), seen, self.chunk)
        # log φ = λ + k·log W − λW, with W as large as float32 can hold, where φ is 0
        contribution = (rate + k * log_w - rate * log_w.clamp(max=80.0).exp()).exp()
        loss = -attach_gradient(contribution, seen.log_ratio) * seen.advantage
        return Terms(loss, reported_weight(contribution, seen.log_ratio, self.log_ratio_bound), contribution), {}


@dataclass(frozen=True)
class GSPO(ContextObjective):
    """Group Sequence Policy Optimization: PPO-Clip of the geometric mean of a sequence's ratios (arXiv 2507.18071).

    With s = exp(mean of x over the sequence), −min(sA, clip(s, 1−ε₁, 1+ε₂)·A); its gradient is −s·A·(mean of ∇x).

    Args:
        clip_low: ε₁; 3e-4 in the paper, for sequences of thousands of tokens.
        clip_high: ε₂; 4e-4 in the paper.
        chunk: the sequence is a whole chunk of actions, not a step of it.
        log_ratio_bound: upper bound on log s, nats: of bad actions that became likelier.
    """

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    chunk: bool = False
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "clip_low", "clip_high")
        require_bound(self.log_ratio_bound)
        if self.clip_low >= 1:
            raise UserError(f"GSPO.clip_low must be below 1, got {self.clip_low}")

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss and trust weight per element: all dimensions of a sequence share s, and are clipped together."""
        s = sequence_mean(seen.log_ratio.detach(), seen, self.chunk).clamp(max=self.log_ratio_bound).exp()
        cut = ((s > 1 + self.clip_high) & (seen.advantage > 0)) | ((s < 1 - self.clip_low) & (seen.advantage < 0))
        slope = torch.where(cut, 0.0, s)
        value = torch.where(cut, by_sign(seen.advantage, 1 + self.clip_high, 1 - self.clip_low), s)
        loss = -with_slope(value, slope, seen.log_ratio) * seen.advantage
        return Terms(loss, reported_weight(slope, seen.log_ratio, self.log_ratio_bound), slope), {}


@dataclass(frozen=True)
class GMPO(ContextObjective):
    """Geometric-Mean Policy Optimization: the geometric mean of ratios that are clipped one by one (arXiv 2507.20673).

    −G·A with log G the mean over the sequence of min(x, c) where A > 0, and of max(x, −c) where A < 0. A dimension that
    is clipped has no gradient, but its clipped ratio stays in the others' G.

    Args:
        clip: c, nats; .4 in the paper, whose ratios lie in (e^−.4, e^.4).
        chunk: the sequence is a whole chunk of actions, not a step of it.
        log_ratio_bound: upper bound on log G, nats: of bad actions that became likelier.
    """

    clip: float = 0.4
    chunk: bool = False
    log_ratio_bound: float = 5.0

    def __post_init__(self) -> None:
        require_positive(self, "clip")
        require_bound(self.log_ratio_bound)

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        """Loss and trust weight per element."""
        x = seen.log_ratio.detach()
        clipped = torch.where(seen.advantage > 0, x.clamp(max=self.clip), x.clamp(min=-self.clip))
        mean = sequence_mean(clipped, seen, self.chunk).clamp(max=self.log_ratio_bound).exp()
        slope = torch.where(clipped == x, mean, 0.0)
        loss = -with_slope(mean, slope, seen.log_ratio) * seen.advantage
        return Terms(loss, reported_weight(slope, seen.log_ratio, self.log_ratio_bound), slope), {}
