"""Staleness diagnostics: what old data does to the update, as pure functions of one iteration's samples."""

import math

import torch
from scipy.special import stdtrit
from torch import Tensor

from gipo.objectives import Terms, masked_mean, ppo_dead

FRESH, OLD = 2, 10  # policy versions: "fresh" samples are at most 2 behind, "old" ones at least 10
SUPPRESSED = 1e-3  # weights and contributions below this do not move the policy
PPO_CLIP = 0.2  # ε of the reference clip in `dead`


def staleness(
    log_ratio: Tensor, weight: Tensor, contribution: Tensor, advantage: Tensor, age: Tensor, used: Tensor
) -> dict[str, Tensor]:
    """Diagnostics of the samples of an iteration, as scalars on their device.

    Args:
        log_ratio: x [N, D], nats.
        weight: trust weight w [N, D].
        contribution: u = w·ρ [N, D].
        advantage: A [N].
        age: learner version − policy version that acted [N]; NaN where that is unknown.
        used: [N, D] elements that entered the loss.
    """
    masked = (used.numel() - used.sum()).float()
    wide = (advantage.unsqueeze(-1).expand_as(log_ratio), age.unsqueeze(-1).expand_as(log_ratio))
    parts = (log_ratio, weight, contribution, *wide)
    # Most iterations use everything, and need no search for what is used.
    x, w, u, advantage, age = (part[used] for part in parts) if masked else (part.flatten() for part in parts)
    x, age = x.float(), age.float()
    if x.numel() == 0:
        return {"staleness/masked": masked}
    rho = x.exp()
    pull = (u * advantage).abs()
    return {
        **_ages(age),
        "ratio/log_mean": x.mean(),
        "ratio/log_std": x.std(correction=0),
        "ratio/log_abs_p95": quantile(x.abs(), 0.95),
        "ratio/p99": quantile(rho, 0.99),
        "ratio/max": rho.max(),
        "weight/mean": w.mean(),
        "weight/min": w.min(),
        "weight/suppressed": (w < SUPPRESSED).float().mean(),
        "weight/ppo_dead": ppo_dead(x, advantage, PPO_CLIP).float().mean(),
        "contribution/mean": u.mean(),
        "contribution/near_zero": (u < SUPPRESSED).float().mean(),
        "contribution/old_share": torch.where(age >= OLD, pull, 0.0).sum() / pull.sum().clamp(min=1e-12),
        **_effective_sizes(u, age),
        "staleness/masked": masked,
    }


def _ages(age: Tensor) -> dict[str, Tensor]:
    """Figures of ages [N], and the share of those that are NaN, where there are any: they are in no other figure."""
    if (unknown := age.isnan()).any():
        known = age[~unknown]
        return {"staleness/unknown_share": unknown.float().mean()} | (_ages(known) if known.numel() else {})
    return {
        "staleness/age_mean": age.mean(),
        "staleness/age_p95": quantile(age, 0.95),
        "staleness/age_max": age.max(),
        "staleness/fresh_share": (age <= FRESH).float().mean(),
        "staleness/old_share": (age >= OLD).float().mean(),
    }


def _effective_sizes(u: Tensor, age: Tensor) -> dict[str, Tensor]:
    """Effective sample size of all contributions u [N], and within each of three ranges of their age [N]."""
    sizes = {"ess/all": effective_sample_size(u)}
    ranges = {"fresh": age <= FRESH, "middle": (age > FRESH) & (age < OLD), "old": age >= OLD}
    for name, inside in ranges.items():
        # (Σu)²/(n·Σu²) over the n samples inside, without a data-dependent shape
        share = inside.sum().clamp(min=1) / inside.numel()
        sizes[f"ess/{name}"] = effective_sample_size(torch.where(inside, u, 0.0)) / share
    return sizes


def effective_sample_size(u: Tensor) -> Tensor:
    """(Σu)² / (N·Σu²) in [0, 1], for contributions u ≥ 0 of shape [N]; 0 when all are 0."""
    peak = u.max().clamp(min=torch.finfo(u.dtype).tiny)
    u = u / peak  # scale-free, and squares stay in range
    return u.sum() ** 2 / (u.numel() * (u**2).sum().clamp(min=torch.finfo(u.dtype).tiny))


def explained_variance(value: Tensor, target: Tensor, used: Tensor) -> Tensor:
    """1 − Var(target − value)/Var(target) along the last axis, of what is `used`; all [..., N].

    1 is a perfect critic, 0 as good as a constant; 0 for constant targets, NaN where nothing is used.
    """
    spread = _variance(target, used)
    return torch.where(spread <= 1e-12, 0.0, 1 - _variance(target - value, used) / spread.clamp(min=1e-12))


def _variance(x: Tensor, used: Tensor) -> Tensor:
    n, x = used.sum(-1, keepdim=True), torch.where(used, x, 0.0)
    return (torch.where(used, x - x.sum(-1, keepdim=True) / n, 0.0) ** 2).sum(-1) / n.squeeze(-1)


def quantile(x: Tensor, q: float) -> Tensor:
    """The ⌈qN⌉-th smallest element of x [N], by selection: no sort, no size limit."""
    return x.kthvalue(max(1, -int(-q * x.numel() // 1))).values


def mean_interval(x: Tensor) -> tuple[float, float, float]:
    """Mean of x [N] and Student's 95 % interval of it."""
    mean, runs = float(x.mean()), len(x)
    if runs < 2:
        return mean, -math.inf, math.inf
    # x̄ ± t·s/√N
    half = float(stdtrit(runs - 1, 0.975)) * float(x.std(correction=1)) / math.sqrt(runs)
    return mean, mean - half, mean + half


def loss_metrics(x: Tensor, left: Tensor, terms: Terms, used: Tensor) -> dict[str, Tensor]:
    """What `gipo.loss.GIPOLoss` says of a batch, scalars.

    Args:
        x: log-ratio that the objective acts on [N, D] or [N], nats, without a gradient.
        left: what is left of the behaviour log-ratio beside it, of that shape.
        terms: what the objective says.
        used: elements that entered the loss.
    """
    rho, count = torch.where(used, x + left, 0.0).exp(), used.sum().clamp(min=1)
    return {
        "weight": masked_mean(terms.weight, used),
        "clip_fraction": masked_mean((terms.weight < SUPPRESSED).to(rho.dtype), used),
        # (Σu)²/(n·Σu²) over the n elements used
        "ESS": effective_sample_size(torch.where(used, terms.contribution, 0.0)) * used.numel() / count,
        "kl_approx": masked_mean(-x, used),
        "max_ratio": torch.where(used, rho, 0.0).max(),
        "mean_ratio": masked_mean(rho, used),
    }
