"""What the interval of the last look says of two policies, and at which confidence it is."""

import numpy as np
import pytest

from robots.review.confidence_sequence import confidence_sequence
from robots.review.paired import Paired


@pytest.mark.parametrize(
    ("low", "high", "told", "better"),
    [
        (0.01, 0.5, True, True),
        (-0.5, -0.01, True, False),
        (-0.03, -0.01, True, False),
        (-0.01, 0.5, False, False),
        (0.0, 0.0, False, False),
    ],
)
def test_only_an_interval_above_zero_is_of_a_better_candidate(
    low: float, high: float, told: bool, better: bool
) -> None:
    found = Paired(np.ones(2), np.array([[0.2, 0.9], [low, high]]))
    assert (found.told, found.better) == (told, better)


def test_pairs_are_looked_at_with_a_confidence_of_95_percent() -> None:
    difference = np.array([1.0, 0.0, 1.0, -1.0, 1.0])
    np.testing.assert_array_equal(Paired.of(difference).looks, confidence_sequence(difference, -1, 1, 0.05))
