"""What the learners of a run, a process (rank) each, have to agree on. For one learner alone nothing changes.

R ranks on batches of B/R make the update of one learner on a batch of B: a strategy averages gradients over ranks, so
what is a mean over a whole batch has to be weighed, and what is a statistic of it has to be pooled.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """R, the learners that are running; 1 outside of distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this learner, from 0."""
    return dist.get_rank() if count() > 1 else 0


def joined(x: Tensor) -> Tensor:
    """x [N, ...] of all ranks, one after the other: [ΣN, ...]; N may differ between them."""
    if count() == 1:
        return x
    sizes = _every(torch.tensor(len(x), device=x.device)).tolist()
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: len(x)] = x
    return torch.cat([part[:size] for part, size in zip(_every(padded), sizes, strict=True)])


def averaged(x: Tensor) -> Tensor:
    """Mean of x over the ranks."""
    return x if count() == 1 else _every(x).mean(0)


def weighed(mean: Tensor, used: Tensor) -> Tensor:
    """A mean over the elements `used` of this rank, scaled so that the average over ranks is the mean over all of them.

    L = Σ_r n_r·L_r / Σ_r n_r = (1/R)·Σ_r (R·n_r/Σn)·L_r
    """
    if count() == 1:
        return mean
    counts = _every(used.sum())
    return mean * (count() * counts[rank()] / counts.sum().clamp(min=1))


def mean_and_std(x: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (unbiased) standard deviation along the last axis of x [..., N] where `used`, of all ranks: [...].

    The deviation of one element alone is 0; of none the mean is NaN.
    """
    n = used.sum(-1)
    mean = _sum_where(used, x) / n
    m2 = _sum_where(used, (x - mean.unsqueeze(-1)) ** 2)
    if count() > 1:
        # μ = Σn·x̄/N;  M₂ = Σ(M₂ + n·(x̄ − μ)²)
        n, mean, m2 = _every(torch.stack((n.double(), torch.where(n > 0, mean, 0.0), m2))).unbind(1)
        pooled = (n * mean).sum(0) / n.sum(0)
        n, mean, m2 = n.sum(0), pooled, (m2 + n * (mean - pooled) ** 2).sum(0)
    return mean.to(x.dtype), (m2 / (n - 1).clamp(min=1)).sqrt().to(x.dtype)


def gathered(own: Any) -> list[Any]:
    """Plain data of every rank, on the first rank; on the others their own alone."""
    if count() == 1:
        return [own]
    collected: list[Any] | None = [None] * count() if rank() == 0 else None
    dist.gather_object(own, collected)
    return collected or [own]


def others(own: Any) -> list[Any]:
    """Plain data of every rank but this one, in their order."""
    if count() == 1:
        return []
    collected: list[Any] = [None] * count()
    dist.all_gather_object(collected, own)
    return collected[: rank()] + collected[rank() + 1 :]


def of_the_first(own: Any) -> Any:
    """Plain data of the first rank, on every one."""
    if count() > 1:
        one = [own]
        dist.broadcast_object_list(one)
        return one[0]
    return own


def is_loss_of_a_rank(error: BaseException) -> bool:
    """Whether an error is how the collectives of the others end when a rank dies or hangs."""
    # gloo raises plain RuntimeErrors, which only their text tells from others; alone nobody can be lost
    signs = ("onnection closed", "onnection reset", "Socket closed", "imed out", "gloo/transport", "Broken pipe")
    return isinstance(error, dist.DistError) or (
        count() > 1 and isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )


def _sum_where(used: Tensor, x: Tensor) -> Tensor:
    return torch.where(used, x, 0.0).sum(-1, dtype=torch.float64)


def _every(x: Tensor) -> Tensor:
    """x of every rank, stacked: [R, ...]."""
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(count())]
    dist.all_gather(parts, x)
    return torch.stack(parts)
