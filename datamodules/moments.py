"""The observation moments of a policy that has seen nothing yet, from data that was there before it."""

from torch import Tensor

from datamodules.valuation import CHUNK
from gipo.policies import Policy


def learn_moments(policy: Policy, observation: Tensor, rows: Tensor | None = None) -> None:
    """Give a new policy's normaliser the moments of the observations; one that has moments keeps them.

    Args:
        policy: that is to learn from these observations.
        observation: [M, O], may be memory-mapped.
        rows: indices of those that count; all unless given.
    """
    if policy.normaliser is None or policy.normaliser.count > 0:
        return
    parts = observation.split(CHUNK) if rows is None else (observation[part] for part in rows.split(CHUNK))
    for part in parts:
        policy.learn_moments(part.to(policy.version.device))
