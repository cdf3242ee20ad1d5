"""A batch in parts, whose gradients add up to that of the whole: only what is computed at once takes memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensordict import TensorDictBase
from torch import Tensor

from gipo.common.errors import UserError
from gipo.learning.imitation import by_persons
from gipo.learning.losses import Samples
from gipo.objective import Objective


@dataclass
class MicroBatch:
    """Some transitions of a batch, or all of them, and what an update leaves of them for the next.

    Args:
        batch: of them [b].
        samples: of them.
        size: b/B.
        shares: of what counts in the batch, how much is here: for the loss of the `policy`, for that of the `value`,
            of `persons`, and for the loss of `imitation`; scalars. Empty where all is.
        seen: by the critic, as long as the policy stays as it is.
        values: that the critic gave [b] or [b, H].
        memory: of the objective, after these samples.
    """

    batch: TensorDictBase
    samples: Samples
    size: float
    shares: Mapping[str, Tensor]
    seen: Tensor | None = None
    values: Tensor | None = None
    memory: Tensor | None = None

    def share_of(self, name: str, mean: Tensor) -> Tensor:
        """What a mean over this part adds to that over the batch."""
        return mean if not self.shares else self.shares[name] * mean


def parts_of(batch: TensorDictBase, samples: Samples, size: int | None) -> Sequence[MicroBatch]:
    """A batch [B] in parts of `size` transitions, the last of them of what is left; None for one part.

    The mean over all is the sum of the means over the parts, each times its share of what counts:

        L = Σ_i (n_i/n)·L_i
    """
    if size is None:
        return [MicroBatch(batch, samples, 1.0, {})]
    steps = len(samples.valid) // len(batch)
    counted, found = _counted(batch, samples), []
    for first in range(0, len(batch), size):
        own, some = slice(first * steps, (first + size) * steps), batch[first : first + size]
        entropy = None if samples.entropy is None else samples.entropy[own]
        mine = Samples(samples.valid[own], samples.advantage[own], samples.age[own], entropy)
        shares = {name: mask[own].sum() / mask.sum().clamp(min=1) for name, mask in counted.items()}
        found.append(MicroBatch(some, mine, len(some) / len(batch), shares))
    return found


def _counted(batch: TensorDictBase, samples: Samples) -> dict[str, Tensor]:
    """What of a batch counts in each mean: elements [N, D], and values [N]."""
    known = batch["log_prob"].flatten(0, -2).isfinite()  # the losses leave out what is not
    policy = (samples.valid & samples.advantage.isfinite()).unsqueeze(-1) & known
    executed = batch.get("executed", None)
    valued = batch["value_target"].isfinite() if executed is None else executed
    found = {"policy": policy, "value": valued.flatten()}
    if "source" in batch.keys():
        found["persons"] = by_persons(batch["source"], len(known)) & known
        found["imitation"] = found["persons"] | policy
    return found


def refuse_single(size: int, normalise_advantages: bool) -> None:
    """Refuse batches of a `size`, in transitions of all learners, over which advantages have no deviation.

    Raises:
        UserError: naming the options.
    """
    if normalise_advantages and size < 2:
        raise UserError("model.normalise_advantages needs batches of at least 2 transitions; raise data.batch")


def refuse_whole(size: int, objective: Objective) -> None:
    """Refuse parts of `size` transitions where a batch is weighed as a whole.

    Raises:
        UserError: naming the option.
    """
    if size < 1:
        raise UserError(f"model.micro_batch must be at least 1, got {size}")
    if objective.needs_whole_batch:
        raise UserError(
            f"model.objective={type(objective).__name__} weighs a batch as a whole; leave out model.micro_batch, or "
            "choose one that does not, such as model.objective=GIPO"
        )
