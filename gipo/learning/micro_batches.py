"""A batch in parts, whose gradients add up to that of the whole: only what is computed at once takes memory."""

from collections.abc import Sequence
from typing import NamedTuple

from tensordict import TensorDictBase
from torch import Tensor

from gipo.common.errors import UserError
from gipo.learning.losses import Samples
from gipo.objective import Objective


class MicroBatch(NamedTuple):
    """Some transitions of a batch.

    Args:
        batch: of them [b].
        samples: of them.
        policy: of the samples that count for the policy's loss, the share that is here, scalar.
        value: of the values that count for the critic's, the same.
    """

    batch: TensorDictBase
    samples: Samples
    policy: Tensor
    value: Tensor


def parts_of(batch: TensorDictBase, samples: Samples, size: int) -> Sequence[MicroBatch]:
    """A batch [B] in parts of `size` transitions, the last of them of what is left.

    The mean over all is the sum of the means over the parts, each times its share of what counts:

        L = Σ_i (n_i/n)·L_i
    """
    steps = len(samples.valid) // len(batch)
    known = batch["log_prob"].flatten(0, -2).isfinite()  # [N, D]; the loss leaves out what is not
    counts = (samples.valid & samples.advantage.isfinite()).unsqueeze(-1) & known
    executed = batch.get("executed", None)
    valued = batch["value_target"].isfinite() if executed is None else executed
    found = []
    for first in range(0, len(batch), size):
        own, some = slice(first * steps, (first + size) * steps), batch[first : first + size]
        entropy = None if samples.entropy is None else samples.entropy[own]
        mine = Samples(samples.valid[own], samples.advantage[own], samples.age[own], entropy)
        shares = (part.sum() / whole.sum().clamp(min=1) for part, whole in (
            (counts[own], counts), (valued[first : first + size], valued)
        ))  # fmt: skip
        found.append(MicroBatch(some, mine, *shares))
    return found


def refuse_whole(size: int, objective: Objective, human_coef: float) -> None:
    """Refuse parts of `size` transitions where a batch is weighed as a whole.

    Raises:
        UserError: naming the option.
    """
    if size < 1:
        raise UserError(f"model.micro_batch must be at least 1, got {size}")
    if human_coef:
        raise UserError("model.micro_batch cannot be used with model.human_coef, which weighs a batch as a whole")
    if objective.needs_whole_batch or objective.memory() is not None:
        raise UserError(
            f"model.objective={type(objective).__name__} weighs a batch as a whole; leave out model.micro_batch, or "
            "choose one that does not, such as model.objective=GIPO"
        )
