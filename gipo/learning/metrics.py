"""What is logged: of the updates of one training iteration, and of evaluation episodes."""

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from gipo.common.intervals import wilson_interval
from gipo.distributed import ranks
from gipo.learning.diagnostics import mean_interval, staleness
from gipo.learning.losses import PolicyTerms
from gipo.objective import Figures


class Iteration:
    """What one iteration leaves on the device, made into metrics once at its end."""

    def __init__(self) -> None:
        self.policy_loss: list[Tensor] = []
        self.value_loss: list[Tensor] = []
        self.kl: list[Tensor] = []
        self.policy_grad_norm: list[Tensor] = []
        self.value_grad_norm: list[Tensor] = []
        self.explained_variance: list[Tensor] = []
        self.figures: list[Figures] = []
        self.samples: list[tuple[Tensor, ...]] = []

    def add(self, terms: PolicyTerms, advantage: Tensor, age: Tensor) -> None:
        """Keep what a policy update leaves."""
        _, weight, contribution, used, figures = terms.surrogate
        self.policy_loss.append(ranks.weighed(terms.surrogate.loss, used))
        self.kl.append(ranks.weighed(terms.kl, used))
        self.figures.append(figures)
        self.samples.append((terms.log_ratio, weight, contribution, advantage, age, used))

    def metrics(self) -> dict[str, Tensor]:
        """Means over the iteration and the staleness diagnostics of all its samples, of all ranks."""
        means = {
            "loss/policy": self.policy_loss,
            "loss/value": self.value_loss,
            "kl": self.kl,
            "grad_norm/policy": self.policy_grad_norm,
            "grad_norm/value": self.value_grad_norm,
            "explained_variance": self.explained_variance,
            **{name: [figures[name] for figures in self.figures] for name in (self.figures or [{}])[0]},
        }
        metrics = {name: ranks.averaged(torch.stack(values)).nanmean() for name, values in means.items() if values}
        if not self.samples:  # the critic learned alone
            return metrics
        return metrics | staleness(*(ranks.joined(torch.cat(parts)) for parts in zip(*self.samples, strict=True)))


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
