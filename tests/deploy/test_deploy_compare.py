"""How far one policy is from another, by hand, and the observations that it is measured on."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.runtime.compare import shift, typical_observations, with_vision
from deploy.runtime.layout import Layout, Vision


def test_distances_by_hand() -> None:
    """Of four action dimensions the first moves from N(0, 1) to N(1, 2²); its latent was 0."""
    moved = np.zeros((2, 2, 2))
    moved[0, 0] = 1, math.log(2)
    nothing = np.zeros((2, 2))
    before = {"params": np.zeros((2, 2, 2)), "latent": nothing, "action": nothing, "deterministic_action": nothing}
    after = {
        "params": moved, "latent": nothing + 9,
        "action": np.array([[-1.0, 0.0], [0.0, 0.0]]), "deterministic_action": np.array([[0.0, 0.0], [-2.0, 0.4]]),
    }  # fmt: skip
    kl = math.log(2) + 2 / 8 - 1 / 2
    # log N(0; 1, 2²) - log N(0; 0, 1) = -log 2 - (1/2)²/2
    log_prob = math.log(2) + 1 / 8
    assert shift("gaussian", before, after) == pytest.approx(
        {
            "kl_mean": kl / 4, "kl_max": kl,
            "log_prob_difference_mean": log_prob / 4, "log_prob_difference_max": log_prob,
            "action_difference_mean": 1 / 4, "action_difference_max": 1,
            "deterministic_action_difference_mean": 2.4 / 4, "deterministic_action_difference_max": 2,
        }
    )  # fmt: skip


@pytest.mark.parametrize("normalised", [False, True])
def test_typical_observations_are_spread_as_the_normaliser_saw_them(normalised: bool) -> None:
    mean, scale = ((3.0, -20.0), (0.5, 4.0)) if normalised else ((0.0, 0.0), (1.0, 1.0))
    normaliser = SimpleNamespace(mean=mean, scale=scale) if normalised else None
    policy: Any = SimpleNamespace(
        manifest=SimpleNamespace(normaliser=normaliser, layout=Layout(2, 1), observation_size=2)
    )
    found = typical_observations(policy, 4000)
    assert (found.shape, found.dtype) == ((4000, 2), np.float32)
    assert found.mean(0) == pytest.approx(mean, abs=0.3)
    assert found.std(0) == pytest.approx(scale, rel=0.1)
    np.testing.assert_array_equal(typical_observations(policy, 4000), found)


def test_what_a_policy_sees_is_any_byte_and_any_word() -> None:
    layout = Layout(2, 1, Vision((1, 2, 2), 3, 1))
    states = np.arange(20_000, dtype=np.float32).reshape(-1, 2) / 7
    rows = with_vision(layout, states, np.random.default_rng(0))
    assert (rows.shape, rows.dtype) == ((10_000, 2 + 4 + 3), np.float32)
    np.testing.assert_array_equal(rows[:, :2], states)
    assert np.unique(rows[:, 2:6]).tolist() == list(range(256))
    letters, words = set(range(97, 123)), rows[:, 6:].astype(int)
    assert set(words.flatten().tolist()) == letters | {0}
    lengths = (words > 0).sum(1)
    assert np.unique(lengths).tolist() == [1, 2, 3]
    assert all((word[:length] > 0).all() for word, length in zip(words, lengths, strict=True))
