"""What is logged: of the updates of one training iteration, and of evaluation episodes."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from gipo.common.errors import UserError
from gipo.common.intervals import wilson_interval
from gipo.distributed import ranks
from gipo.learning.diagnostics import explained_variance, mean_interval, staleness
from gipo.learning.losses import PolicyTerms

ANY = "any of "  # before the name of a mean: whether an update had anything to average, which is no metric
FIGURE = "figure "  # before the name of what an objective gives, which may be anybody's, until it is a metric


class Iteration:
    """What one iteration leaves on the device, made into metrics once at its end.

    Args:
        copied: keep copies, where the memory that figures lie in is written over.
    """

    def __init__(self, copied: bool = False) -> None:
        self._copied = copied
        self._figures: dict[str, list[Tensor]] = defaultdict(list)
        self._sums: dict[str, Tensor] = {}
        self._samples: list[tuple[Tensor, ...]] = []
        self._values: list[list[Tensor]] = []

    def keep(self, name: str, figure: Tensor, share: Tensor | None = None) -> None:
        """Keep a scalar of one update; its mean over the iteration is the metric `name`.

        With `share`, the figure is of a part of a batch: share·figure is summed over the parts until `end_parts`.
        """
        if share is None:
            self._figures[name].append(self._own(figure))
            return
        mine = torch.where(share > 0, share * figure.detach(), 0)
        self._sums[name] = self._sums[name] + mine if name in self._sums else mine

    def keep_mean(self, name: str, mean: Tensor, counted: Tensor, share: Tensor | None = None) -> None:
        """Keep a mean over what is `counted`, of which there may be nothing: an update that had none says nothing."""
        self.keep(name, mean, share)
        self.keep(ANY + name, counted.any().float(), share)

    def end_parts(self) -> None:
        """Keep what the parts of a batch came to."""
        for name, figure in self._sums.items():
            self.keep(name, figure)
        self._sums = {}

    def add(self, terms: PolicyTerms, advantage: Tensor, age: Tensor, share: Tensor | None = None) -> None:
        """Keep what a policy update leaves, or of a part of its batch, which is a `share` of it."""
        loss, weight, contribution, used, figures, _ = terms.surrogate
        self.keep("loss/policy", ranks.weighed(loss, used), share)
        for name, figure in {"kl": terms.kl, **{FIGURE + name: figure for name, figure in figures.items()}}.items():
            self.keep_mean(name, ranks.weighed(figure, used), used, share)
        log_ratio, weight, contribution, used = map(self._own, (terms.log_ratio, weight, contribution, used))
        self._samples.append((log_ratio, weight, contribution, advantage, age, used))

    def add_values(self, value: Tensor, target: Tensor, executed: Tensor | None) -> None:
        """Keep values [B] or [B, H] of a batch that was learned from, and their targets."""
        used = torch.ones_like(target, dtype=torch.bool) if executed is None else executed
        self._values.append([each.flatten() for each in (self._own(value), target, used)])

    def metrics(self) -> dict[str, Tensor]:
        """Means over the iteration and the staleness diagnostics of all its samples, of all ranks.

        Raises:
            UserError: when the objective gives a figure that has the name of another metric.
        """
        found = {name: ranks.averaged(torch.stack(figures)) for name, figures in self._figures.items()}
        for counted in [name for name in found if name.startswith(ANY)]:
            name = counted.removeprefix(ANY)  # such as the KL, of an update on persons' steps alone
            found[name] = torch.where(found.pop(counted) > 0, found[name], torch.nan)
        metrics = {name: figures.nanmean() for name, figures in found.items()}
        value, target, used = (ranks.joined(torch.stack(parts, -1)).mT for parts in zip(*self._values, strict=True))
        metrics["explained_variance"] = explained_variance(value, target, used).nanmean()
        if not self._samples:  # the critic learned alone
            return metrics
        metrics |= staleness(*(ranks.joined(torch.cat(parts)) for parts in zip(*self._samples, strict=True)))
        figures = {name: metrics.pop(name) for name in [*metrics] if name.startswith(FIGURE)}
        return beside(metrics, {name.removeprefix(FIGURE): figure for name, figure in figures.items()})

    def _own(self, x: Tensor) -> Tensor:
        return x.detach().clone() if self._copied else x.detach()


def beside(metrics: dict[str, Tensor], figures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Metrics and an objective's figures, of which none may stand in the place of a metric.

    Raises:
        UserError: naming the figure.
    """
    for name in figures:
        if name in metrics:
            raise UserError(f"the objective gives a figure {name!r}, and so is a metric called; give it another name")
    return metrics | figures


def episode_figures(episodes: TensorDictBase, parts: Sequence[str] = ()) -> dict[str, float]:
    """Mean with its 95 % interval (`_low`, `_high`) of the return, and of success at any step and at the last step.

    Args:
        episodes: finished ones [N], as evaluation leaves them.
        parts: names of the tasks that `task` counts; the success of each that was evaluated is `success/<name>`.
    """
    intervals = {"return": mean_interval(episodes["return"])}
    for name in ("success", "success_last"):
        if name in episodes.keys():
            intervals[name] = wilson_interval(int(episodes[name].sum()), len(episodes))
    found: dict[str, float] = {}
    for name, (mean, low, high) in intervals.items():
        found |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    if "task" in episodes.keys():
        for index, part in enumerate(parts):
            of_task = episodes["success"][episodes["task"] == index]
            if len(of_task):
                found[f"success/{part}"] = float(of_task.float().mean())
    return found
