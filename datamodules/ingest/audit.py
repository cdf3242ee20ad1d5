"""The audit: what sources say of their policies, recomputed from the artifacts."""

from collections.abc import Mapping

import numpy as np

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.review.audit import TOLERANCE, log_prob_difference


class Auditor:
    """Recomputes a share of the log-probs of each episode.

    Args:
        artifacts: policy_id → file.
        share: of the steps of each episode, in (0, 1]; 0 recomputes nothing.
    """

    def __init__(self, artifacts: Mapping[str, str], share: float):
        self.steps = 0
        self.largest: dict[str, float] = {}
        self._artifacts, self._share = artifacts, share
        self._policies: dict[str, OnnxPolicy] = {}

    def check(self, policy_id: str | None, columns: Mapping[str, np.ndarray]) -> None:
        """Refuse an episode whose log-probs do not come out.

        Raises:
            UserError: naming the step with the largest difference, or the artifact that is missing.
        """
        rows = chosen(columns["valid"], self._share)
        if not len(rows):
            return
        if policy_id is None:
            raise UserError("it has log-probs and names no policy that they could be checked with; audit=0 trusts them")
        picked = {name: columns[name][rows] for name in ("observation", "latent", "log_prob")}
        difference = log_prob_difference(self._policy(policy_id), picked)
        worst = int(difference.argmax())
        if not difference[worst] <= TOLERANCE:
            raise UserError(
                f"step {columns['step'][rows[worst]]}: log_prob is off by {difference[worst]:.1e} nats from what "
                f"policy {policy_id[:12]}… gives"
            )
        self.steps += len(rows)
        self.largest[policy_id] = max(self.largest.get(policy_id, 0.0), float(difference[worst]))

    def _policy(self, policy_id: str) -> OnnxPolicy:
        if policy_id not in self._policies:
            if policy_id not in self._artifacts:
                raise UserError(
                    f"no artifact of policy {policy_id} is there to audit its log-probs; put its .onnx into a folder "
                    "of `policies`, or trust the source with audit=0"
                )
            self._policies[policy_id] = OnnxPolicy.load(self._artifacts[policy_id], require_id=policy_id)
        return self._policies[policy_id]


def chosen(valid: np.ndarray, share: float) -> np.ndarray:
    """Indices of ⌈share · n⌉ of the n valid rows, evenly spaced from the first to the last."""
    rows = np.flatnonzero(valid)
    count = int(np.ceil(share * len(rows)))
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)] if count else rows[:0]
