"""What persons did in logs, as something to do likewise: their steps have no ratio, for no policy chose them."""

from torch import Tensor

from gipo.common.transition import SOURCES
from gipo.objective import masked_mean

PERSON = SOURCES.index("person")


def imitation(log_ratio: Tensor, behaviour_log_prob: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Mean −log π of what persons did, scalar, and of which elements [N, D]; 0 where they did nothing.

    Args:
        log_ratio: x = log π − log μ [N, D], nats; N = B, or B·H with action chunks of H steps.
        behaviour_log_prob: log μ [B, D] or [B, H, D], as x was made with it: of a person's step 0 in a store.
        source: who chose each action [B] or [B, H], as numbers of `SOURCES`.
    """
    # log π = x + log μ
    log_prob = log_ratio.float() + behaviour_log_prob.flatten(0, -2)
    persons = (source.flatten() == PERSON).repeat_interleave(len(log_prob) // source.numel())
    used = persons.unsqueeze(-1) & log_prob.isfinite()
    return -masked_mean(log_prob, used), used
