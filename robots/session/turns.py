"""Who acts in which episode: one policy in all of them, or two in turns, so that both meet the same day and scene."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from deploy.runtime.acting import ActingPolicy
from gipo.common.errors import UserError
from robots.review.paired import Paired
from robots.session.options import Result

ROLES = ("deployed", "candidate")


class Start(NamedTuple):
    """How an episode is begun.

    Args:
        episode: its number within the session.
        seed: of what the robot lets be chosen, and with the number of its noise.
        policy: that acts in it.
    """

    episode: int
    seed: int
    policy: ActingPolicy


class Turns:
    """The order of a session's episodes.

    Args:
        deployed: acts in every episode where it is alone.
        candidate: drives in turns with it: each start twice, once by each, and who is first alternates, so that what
            changes steadily while they drive is not taken for a difference of the two.

    Raises:
        UserError: when the two are the same.
    """

    def __init__(self, deployed: ActingPolicy, candidate: ActingPolicy | None = None):
        self.policies = (deployed,) if candidate is None else (deployed, candidate)
        if candidate is not None and candidate.policy_id == deployed.policy_id:
            raise UserError(f"the candidate is the policy itself ({candidate.policy_id[:12]}…); name another one")

    @property
    def ids(self) -> list[str]:
        """The ids of the deployed policy and of the candidate, in this order; none where one acts alone."""
        return [each.policy_id for each in self.policies] if len(self.policies) > 1 else []

    def roles(self, policy_id: str) -> list[str]:
        """What a policy is, deployed or candidate; nothing where one acts alone."""
        return [role for role, each in zip(ROLES, self.ids, strict=False) if each == policy_id]

    def starts(self, numbers: range, seed: int) -> Iterator[Start]:
        """A start for each number n, from the seed `seed + n`; of two policies two, the episodes 2n and 2n + 1."""
        count = len(self.policies)
        for number in numbers:
            order = self.policies if number % 2 == 0 else self.policies[::-1]
            for place, policy in enumerate(order):
                yield Start(count * number + place, seed + number, policy)

    def paired(self, results: Sequence[Result]) -> Paired:
        """The pairs of which both episodes count (`robots.review.sides`), in the order in which they were driven."""
        deployed, candidate = self.ids
        known = {(each.seed, each.policy_id): bool(each.success) for each in results
                 if each.success is not None and not each.discarded and each.steps}  # fmt: skip
        seeds = dict.fromkeys(each.seed for each in results)
        both = [seed for seed in seeds if (seed, deployed) in known and (seed, candidate) in known]
        return Paired.of(np.array([float(known[seed, candidate]) - known[seed, deployed] for seed in both]))
