"""A candidate policy that thinks along while another one drives."""

import numpy as np

from deploy.runtime.acting import ActingPolicy
from gipo.common.errors import UserError
from robots.divergence import Divergence
from robots.log import LogWriter, Shadow, Step
from robots.session.background import Background


class ShadowPolicy:
    """Scores what the acting policy sampled, and logs it, off the control thread.

    Args:
        policy: the candidate, which `check_comparable` lets pass.
        log: of the session.
        sampled: whether the acting policy samples; of most likely actions no KL can be estimated.
    """

    def __init__(self, policy: ActingPolicy, log: LogWriter, sampled: bool = True):
        self._policy, self._log, self._sampled = policy, log, sampled
        self._log_ratios: list[float] = []
        self._distances: list[float] = []
        self.worker: Background[Step] = Background(self._score)

    def _score(self, row: Step) -> None:
        log_prob = self._policy.log_prob_of(row.observation, row.latent)
        action = self._policy.act(row.observation, None, deterministic=True).action
        if row.proposed_action is None:  # else a person chose, and the latent is no sample of the policy that acts
            self._log_ratios.append(float(np.sum(log_prob - row.log_prob)))
            self._distances.append(float(np.abs(action - row.action).mean()))
        self._log.shadow(
            Shadow(
                episode=row.episode,
                step=row.step,
                policy_id=self._policy.policy_id,
                policy_version=self._policy.manifest.policy_version,
                log_prob=log_prob,
                deterministic_action=action,
            )
        )

    def summary(self) -> Divergence:
        """How far the candidate would have acted otherwise, so far; with a KL where actions were sampled."""
        return Divergence.of(self._log_ratios if self._sampled else [], self._distances, self.worker.dropped)


def check_comparable(policy: ActingPolicy, incumbent: ActingPolicy) -> None:
    """Refuse a candidate whose log-probs are of something else.

    Raises:
        UserError: naming the difference; or that a policy makes its actions in a way of its own.
    """
    mine, theirs = policy.manifest, incumbent.manifest
    if mine.vision is not None or theirs.vision is not None:
        raise UserError("a policy with vision can neither be a shadow nor have one")
    if (mine.family, mine.action_size) != (theirs.family, theirs.action_size) or (
        mine.family == "token" and mine.parameters_per_dimension != theirs.parameters_per_dimension
    ):
        raise UserError(
            f"the shadow policy ({mine.family}, {mine.parameters_per_dimension} parameters a dimension) cannot score "
            f"the latents of the acting one ({theirs.family}, {theirs.parameters_per_dimension})"
        )
    if mine.family == "gaussian" and (way := policy.latents.way) != incumbent.latents.way:
        raise UserError(
            f"the shadow policy makes actions of latents by {way}, the acting one by {incumbent.latents.way}: the same "
            "latent is another action"
        )
