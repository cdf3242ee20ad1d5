"""How far a policy that looks on would have acted otherwise than the one that acts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gipo.common.errors import UserError
from robots.log import Episode

CUT = 50.0  # nats: beyond, eˣ is no estimate of anything


@dataclass(frozen=True)
class Divergence:
    """What the steps that were compared come to.

    Args:
        steps: how many.
        kl: KL(acting‖looking on) of a whole action, nats; NaN where no action was sampled.
        action_distance: mean |Δ action| between what was done and what the one that looks on finds most likely; NaN of
            no steps.
        missed: steps that it did not come to.
    """

    steps: int
    kl: float
    action_distance: float
    missed: int = 0

    @classmethod
    def of(cls, log_ratios: Sequence[float], distances: Sequence[float], missed: int = 0) -> "Divergence":
        """The divergence by x = log π(a) − log μ(a) of each step, π looking on and a sampled from μ.

        Source: its KL is the mean of eˣ − 1 − x, as `gipo.objectives.k3`, of x ≤ 50.
        """
        x = np.minimum(np.array(log_ratios, float), CUT)  # from above alone: it is finite below
        kl = float(np.mean(np.expm1(x) - x)) if len(x) else math.nan
        return cls(len(distances), kl, float(np.mean(distances)) if distances else math.nan, missed)

    def __str__(self) -> str:
        kl = "" if math.isnan(self.kl) else f"KL {self.kl:.3g} nats, "
        steps = f"{self.steps} steps" + (f" and {self.missed} not scored" if self.missed else "")
        return f"{steps}, {kl}|Δ action| {self.action_distance:.3g}" if self.steps else steps


def shadows(episodes: Iterable[Episode]) -> dict[str, Divergence]:
    """policy_id → divergence, of the policies that looked on while these episodes were logged.

    Raises:
        UserError: when a row of one has another form than the actions.
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    steps = 0  # that could have been scored
    for episode in episodes:
        own = ~episode.overruled
        rows = {int(step): row for row, step in enumerate(episode["step"]) if own[row]}
        steps += len(rows)
        for shadow in episode.shadows:
            log_ratios, distances = found.setdefault(str(shadow.get("policy_id", "?")), ([], []))
            row = rows.get(shadow["step"])
            if row is None:
                continue
            log_prob, action = np.array(shadow["log_prob"]), np.array(shadow["deterministic_action"], np.float32)
            if action.shape != episode["action"][row].shape:
                raise UserError(f"episode {episode.number}, step {shadow['step']}: a shadow of another form")
            if not episode.deterministic:
                log_ratios.append(float(np.sum(log_prob - episode["log_prob"][row])))
            distances.append(float(np.abs(action - episode["action"][row]).mean()))
    return {name: Divergence.of(x, distances, steps - len(distances)) for name, (x, distances) in found.items()}
