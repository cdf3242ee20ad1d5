"""What an audit found: how far logs are from what their artifacts give again."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.common.tables import table
from gipo.common.transition import SOURCES
from robots.log import Episode
from robots.review.tolerances import OFF, OFF_SHARE, ROUNDINGS, TOLERANCE, VIDEO_TOLERANCE


@dataclass
class Audit:
    """How far logs are from what their artifacts give again, over everything audited.

    Args:
        log_prob: policy_id → largest |Δ log-prob|, nats; of policies whose inputs the log has bit for bit.
        action: policy_id → largest |Δ action| between the logged action and the one that its noise gives again, or the
            most likely one of an episode that drew none; of policies of which one was sampled again.
        steps: (policy_id, policy_version) → steps, whoever chose their actions.
        others: the same → steps of them that a person commanded, and that were held.
        unreplayed: steps whose episode does not say its seed.
        unseen: steps of policies with vision whose decision's image or first step was dropped.
        blind: the first log that has steps of which none was recomputed.
        worst: where the largest difference is, in words.
        beyond: the same of the steps whose difference no rounding explains; empty where there is none.
        drawn: steps whose action was sampled again.
        off: those of them whose action is another.
        first_off: where the first of these is, in words.
        drift: |Δ log-prob| of each step that was recomputed from a video, nats.
    """

    log_prob: dict[str, float] = field(default_factory=dict)
    action: dict[str, float] = field(default_factory=dict)
    steps: Counter[tuple[str, int]] = field(default_factory=Counter)
    others: dict[tuple[str, int], np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(2, int)))
    unreplayed: int = 0
    unseen: int = 0
    blind: str = ""
    worst: str = ""
    beyond: str = ""
    drawn: int = 0
    off: int = 0
    first_off: str = ""
    drift: list[float] = field(default_factory=list)

    def take(
        self, policy: OnnxPolicy, where: str, step: np.ndarray, difference: np.ndarray, logged: np.ndarray
    ) -> None:
        """Note how far log-probs of steps [T] are, [T] nats, from those `logged`, [T, D]."""
        largest = _largest(difference)
        said = f"{where}, step {step[int(difference.argmax())]}: off by {largest:.1e} nats"
        if largest >= self.log_prob.get(policy.policy_id, 0.0):
            self.worst, self.log_prob[policy.policy_id] = said, largest
        # NaN is within nothing, and has no spacing either.
        allowed = np.maximum(TOLERANCE, ROUNDINGS * np.spacing(np.abs(logged.astype(np.float32))).max(1))
        if not (difference <= allowed).all():
            self.beyond = self.beyond or said

    def count(self, policy: OnnxPolicy, episode: Episode) -> None:
        """Count the steps of an episode, and who chose their actions."""
        who = (policy.policy_id, policy.manifest.policy_version)
        self.steps[who] += len(episode)
        self.others[who] += [int((episode["source"] == SOURCES.index(name)).sum()) for name in ("person", "hold")]

    def replayed(self, policy: OnnxPolicy, where: str, step: np.ndarray, difference: np.ndarray) -> None:
        """Note how far actions that were sampled again, of steps [T], are from those logged, [T, D]."""
        self.action[policy.policy_id] = max(self.action.get(policy.policy_id, 0.0), _largest(np.abs(difference)))
        span = np.subtract(policy.manifest.action_high, policy.manifest.action_low)
        off = ~(np.abs(difference) <= OFF * span).all(1)  # NaN is within nothing
        self.drawn, self.off = self.drawn + len(off), self.off + int(off.sum())
        if off.any() and not self.first_off:
            self.first_off = f"{where}, step {step[int(off.argmax())]}"

    def check(self) -> None:
        """Refuse logs whose log-probs or actions the artifacts do not reproduce, or one of which none was recomputed.

        Raises:
            UserError: naming the worst step, or the log.
        """
        if self.blind:
            raise UserError(f"no log-prob of {self.blind} was recomputed: it has no image of what its policy saw")
        if not self.steps:
            raise UserError("no log-prob was recomputed: the logs have no step")
        if self.drift and not np.mean(self.drift) <= VIDEO_TOLERANCE:
            raise UserError(
                f"log-probs from the frames of videos are off by {np.mean(self.drift):.2g} nats on average, more than "
                f"the {VIDEO_TOLERANCE:g} that decoding may change"
            )
        if self.beyond:
            raise UserError(f"log-probs are not reproduced to {TOLERANCE:g}: {self.beyond}")
        if self.off > OFF_SHARE * self.drawn:
            raise UserError(
                f"of {self.drawn:,} actions that were sampled again, {self.off:,} are not those that were logged, "
                f"first {self.first_off}; was each drawn from the noise of its episode's seed?"
            )

    def text(self) -> str:
        """The audit as a table for a terminal: a row for each policy and version."""
        head = ("policy", "version", "steps", "max |Δ log-prob|", "max |Δ action|", "a person's", "held")
        rows = [
            (
                f"{name[:12]}…", version, f"{count:,}", _said(self.log_prob, name), _said(self.action, name),
                *(f"{other:,}" for other in self.others[name, version]),
            )
            for (name, version), count in sorted(self.steps.items())
        ]  # fmt: skip
        text = table(head, rows)
        if self.unseen:
            text += f"\n{self.unseen:,} steps were not recomputed: the log has no image of what their policy saw"
        if self.drift:
            text += (
                f"\nof {len(self.drift):,} steps whose images are a video's, log-probs differ by "
                f"{np.mean(self.drift):.2g} nats on average, {max(self.drift):.2g} at most: what decoding has changed; "
                "their actions were not sampled again"
            )
        return text + (f"\n{self.unreplayed:,} steps without a seed were not sampled again" if self.unreplayed else "")


def _largest(differences: np.ndarray) -> float:
    """The largest of them; infinite where one is NaN, which no comparison finds to be too large."""
    found = float(differences.max())
    return math.inf if math.isnan(found) else found


def _said(largest: Mapping[str, float], name: str) -> str:
    return f"{largest[name]:.1e}" if name in largest else "–"
