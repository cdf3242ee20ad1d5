"""What persons did in logs, as something to do likewise: their steps have no ratio, for no policy chose them."""

from typing import NamedTuple

import torch
from torch import Tensor

from gipo.common.transition import PERSON


class Imitation(NamedTuple):
    """What persons did, as a loss, and of which elements it is.

    Args:
        loss: scalar.
        persons: [N, D] elements that are persons'.
        taught: [N, D] elements that it is a mean over: persons' and the policy's own.
    """

    loss: Tensor
    persons: Tensor
    taught: Tensor


def imitation(log_ratio: Tensor, behaviour_log_prob: Tensor, source: Tensor, used: Tensor) -> Imitation:
    """−log π of what persons did, summed, and divided by the number of all elements that teach.

    A mean over persons' elements alone would have a few corrections outweigh everything else. The objective is a mean
    over the n elements of the policy's own: one of those weighs 1/n, one of the m of persons 1/(n + m).

    Args:
        log_ratio: x = log π − log μ [N, D], nats; N = B, or B·H with action chunks of H steps.
        behaviour_log_prob: log μ [B, D] or [B, H, D], as x was made with it: of a person's step 0 in a store.
        source: who chose each action [B] or [B, H], as numbers of `SOURCES`.
        used: [N, D] elements of the policy's own, which the objective is a mean over.

    Returns:
        A loss of 0 where persons did nothing.
    """
    # log π = x + log μ
    log_prob = log_ratio.float() + behaviour_log_prob.flatten(0, -2)
    persons = by_persons(source, len(log_prob)) & log_prob.isfinite()
    taught = persons | used
    # L = −Σ_persons log π / (n_persons + n_used)
    return Imitation(-torch.where(persons, log_prob, 0.0).sum() / taught.sum().clamp(min=1), persons, taught)


def by_persons(source: Tensor, samples: int) -> Tensor:
    """Which of so many samples are persons' [N, 1], of decisions or of steps [B] or [B, H] that `source` tells of."""
    return (source.flatten() == PERSON).repeat_interleave(samples // source.numel()).unsqueeze(-1)
