"""Estimators against a small decision process whose values are sums over all that can happen, and hand numbers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import t as student

from gipo.commands.estimate.estimators import (
    Array,
    LoggedEpisodes,
    Mean,
    advantages,
    effective_episodes,
    estimate,
    importance_sampling,
    less_observed,
    observed,
    per_decision,
    window,
)

STATES, ACTIONS, STEPS = 3, 2, 5
Estimator = Callable[[LoggedEpisodes], list[Mean]]
UNBIASED: dict[str, Estimator] = {
    "importance sampling": importance_sampling,
    "per decision": per_decision,
    "doubly robust": lambda episodes: advantages(episodes, weighted=False),
}
CONSISTENT: dict[str, Estimator] = {
    "weighted importance sampling": lambda episodes: importance_sampling(episodes, weighted=True),
    "weighted per decision": lambda episodes: per_decision(episodes, weighted=True),
    "weighted doubly robust": advantages,
}


class Process:
    """Three states, two actions, five steps: random rewards, transitions and two policies, drawn by a seed."""

    def __init__(self, seed: int, apart: float = 0.5):
        self.draw = np.random.default_rng(seed)
        self.reward = self.draw.normal(size=(STATES, ACTIONS))
        self.next = self.draw.dirichlet(np.ones(STATES), (STATES, ACTIONS))
        logits = self.draw.normal(size=(STATES, ACTIONS))
        self.acted = _softmax(logits)
        self.other = _softmax(logits + apart * self.draw.normal(size=(STATES, ACTIONS)))

    def values(self, policy: Array) -> Array:
        """V(s) [T + 1, S] of each step, by backward induction; the start is state 0."""
        found = np.zeros((STEPS + 1, STATES))
        for t in range(STEPS - 1, -1, -1):
            found[t] = (policy * (self.reward + self.next @ found[t + 1])).sum(1)
        return found

    def surrogate(self) -> float:
        """J(μ) + Σ_t Σ_s d_μ,t(s)·Σ_a (π − μ)·Q_μ,t(s, a)."""
        value, place = self.values(self.acted), np.eye(STATES)[0]
        found = value[0, 0]
        for t in range(STEPS):
            worth = self.reward + self.next @ value[t + 1]
            found += place @ ((self.other - self.acted) * worth).sum(1)
            place = np.einsum("s,sa,sat->t", place, self.acted, self.next)
        return float(found)

    def episodes(self, count: int, baseline: float = 0.0) -> LoggedEpisodes:
        """Episodes of the policy that acted; `baseline` times its true values is V̂."""
        state, value = np.zeros(count, int), self.values(self.acted)
        x, reward, expected = (np.zeros((count, STEPS)) for _ in range(3))
        for t in range(STEPS):
            action = (self.draw.random(count) > self.acted[state, 0]).astype(int)
            x[:, t] = np.log(self.other[state, action] / self.acted[state, action])
            reward[:, t], expected[:, t] = self.reward[state, action], baseline * value[t, state]
            state = (self.draw.random((count, 1)) > self.next[state, action].cumsum(1)).sum(1)
        return LoggedEpisodes(x, reward, expected)


def _softmax(logits: Array) -> Array:
    weight = np.exp(logits)
    found: Array = weight / weight.sum(1, keepdims=True)
    return found


@pytest.mark.parametrize("name", [*UNBIASED, *CONSISTENT])
@pytest.mark.parametrize("baseline", [0.0, 1.0, -3.0])
def test_every_estimator_finds_the_value_of_the_other_policy(name: str, baseline: float) -> None:
    process = Process(1)
    found = estimate((UNBIASED | CONSISTENT)[name](process.episodes(40_000, baseline)))
    truth = process.values(process.other)[0, 0]
    error = (found.high - found.low) / 2 / 1.96
    assert abs(truth - process.values(process.acted)[0, 0]) > 0.2  # there is something to be found
    assert abs(found.middle - truth) < 4 * error < 0.4


def test_the_last_decision_alone_gives_the_surrogate() -> None:
    process = Process(1, apart=1.0)
    found = estimate(advantages(process.episodes(40_000, 1.0), last=1))
    error = (found.high - found.low) / 2 / 1.96
    assert abs(found.middle - process.surrogate()) < 4 * error < 0.05
    assert abs(process.surrogate() - process.values(process.other)[0, 0]) > 4 * error  # which is another number


@pytest.mark.parametrize("name", [*UNBIASED, *CONSISTENT])
def test_intervals_of_few_episodes_hold_the_value(name: str) -> None:
    process, held, tries = Process(2, apart=0.3), 0, 400
    truth = process.values(process.other)[0, 0]
    for _ in range(tries):
        found = estimate((UNBIASED | CONSISTENT)[name](process.episodes(30, 1.0)))
        held += found.low <= truth <= found.high
    assert 0.91 < held / tries < 0.985  # 95 %, within what few episodes with unequal weights allow


@pytest.mark.parametrize(("seed", "apart", "least"), [(2, 0.3, 0.86), (2, 2.0, 0.78), (5, 0.3, 0.93), (5, 1.0, 0.9)])
def test_intervals_of_a_difference_are_somewhat_too_narrow(seed: int, apart: float, least: float) -> None:
    """The page says how often they hold: 82 to 98 % where there are ten effective episodes and more."""
    process, held, tries = Process(seed, apart), [], 250
    truth = process.values(process.other)[0, 0] - process.values(process.acted)[0, 0]
    for _ in range(tries):
        episodes = process.episodes(30, 1.0)
        found = estimate(less_observed(advantages(episodes), episodes))
        if found.episodes >= 10:
            held.append(found.low <= truth <= found.high)
    assert len(held) > tries / 3
    assert least < np.mean(held) < 0.995


def test_a_baseline_narrows_the_interval() -> None:
    process = Process(3)
    process.reward += 2  # which a baseline knows
    episodes = process.episodes(2_000, 1.0)
    blind = episodes._replace(baseline=np.zeros_like(episodes.baseline))
    told, guessed = (estimate(less_observed(advantages(each, weighted=False), each)) for each in (episodes, blind))
    assert told.high - told.low < 0.7 * (guessed.high - guessed.low)


def test_a_difference_is_of_the_same_episodes() -> None:
    process = Process(1)
    episodes = process.episodes(5_000, 1.0)
    difference, whole = estimate(less_observed(advantages(episodes), episodes)), estimate(advantages(episodes))
    assert difference.middle == pytest.approx(whole.middle - estimate(observed(episodes)).middle)
    assert difference.high - difference.low < 0.9 * (whole.high - whole.low)
    truth = process.values(process.other)[0, 0] - process.values(process.acted)[0, 0]
    assert difference.low < truth < difference.high


def test_doubly_robust_is_the_recursion_of_its_authors() -> None:
    episodes = Process(4).episodes(50, 0.7)
    discount = 0.9  # reward and baseline are discounted to the start: γ^t·r_t and γ^t·V̂(s_t)
    powers = discount ** np.arange(STEPS)
    found = episodes._replace(reward=episodes.reward * powers, baseline=episodes.baseline * powers)
    value = np.zeros(50)
    for t in range(STEPS - 1, -1, -1):
        rho = np.exp(episodes.log_ratio[:, t])
        value = episodes.baseline[:, t] + rho * (episodes.reward[:, t] + discount * value - episodes.baseline[:, t])
    assert estimate(advantages(found, weighted=False)).middle == pytest.approx(value.mean(), rel=1e-12)


def test_without_a_baseline_it_is_per_decision_importance_sampling() -> None:
    episodes = Process(5).episodes(50)
    ours, theirs = estimate(advantages(episodes, weighted=False)), estimate(per_decision(episodes))
    assert ours[:3] == pytest.approx(theirs[:3], rel=1e-12)


def test_a_policy_estimates_itself_as_observed() -> None:
    episodes = Process(6).episodes(20, 1.0)
    itself = episodes._replace(log_ratio=np.zeros_like(episodes.log_ratio))
    for estimator in (*UNBIASED.values(), *CONSISTENT.values()):
        assert estimate(estimator(itself)) == pytest.approx(estimate(observed(itself)), rel=1e-12)


def test_hand_numbers() -> None:
    # two episodes of two decisions: ratios 2, 3 and 1, ½; rewards 1, 4 and 2, 6
    episodes = LoggedEpisodes(np.log([[2.0, 3.0], [1.0, 0.5]]), np.array([[1.0, 4.0], [2.0, 6.0]]), np.zeros((2, 2)))
    assert estimate(observed(episodes)).middle == pytest.approx(6.5)
    assert estimate(importance_sampling(episodes)).middle == pytest.approx((6 * 5 + 0.5 * 8) / 2)
    assert estimate(importance_sampling(episodes, weighted=True)).middle == pytest.approx((6 * 5 + 0.5 * 8) / 6.5)
    assert estimate(per_decision(episodes)).middle == pytest.approx((2 * 1 + 6 * 4 + 1 * 2 + 0.5 * 6) / 2)
    found = estimate(per_decision(episodes, weighted=True))
    assert found.middle == pytest.approx((2 * 1 + 1 * 2) / 3 + (6 * 4 + 0.5 * 6) / 6.5)
    # effective: (2 + 1)²/(4 + 1) and 6.5²/(36 + .25)
    assert found.episodes == pytest.approx(6.5**2 / 36.25)
    # plain, of the last decision: 6.5 + ½[(2 − 1)·5 + (3 − 1)·4 + (1 − 1)·8 + (½ − 1)·6]
    assert estimate(advantages(episodes, 1, weighted=False)).middle == pytest.approx(6.5 + (5 + 8 - 3) / 2)


def test_weighted_doubly_robust_by_hand() -> None:
    # G = 3, 2 | 4, 4 and V̂ = 1, 1 | 1, 2, so that A = 2, 1 | 3, 2; w = 2, 2 | ½, 3/2, after 1, 2 | 1, ½
    ratio, reward = np.array([[2.0, 1.0], [0.5, 3.0]]), np.array([[1.0, 2.0], [0.0, 4.0]])
    episodes = LoggedEpisodes(np.log(ratio), reward, np.array([[1.0, 1.0], [1.0, 2.0]]))
    now, before = (2 * 2 + 0.5 * 3) / 2.5 + (2 * 1 + 1.5 * 2) / 3.5, (2 + 3) / 2 + (2 * 1 + 0.5 * 2) / 2.5
    assert estimate(advantages(episodes)).middle == pytest.approx(3.5 + now - before)


def test_a_window_has_the_ratios_of_the_last_decisions() -> None:
    x = np.array([[1.0, 2.0, 4.0, 8.0]])
    now, before = window(x, 2)
    assert now.tolist() == [[1, 3, 6, 12]]
    assert before.tolist() == [[0, 1, 2, 4]]
    for count in (None, 4, 9):
        now, before = window(x, count)
        assert (now.tolist(), before.tolist()) == ([[1, 3, 7, 15]], [[0, 1, 3, 7]])


def test_the_interval_of_a_plain_mean_is_students() -> None:
    # 1, 2, 6: mean 3, deviation √7, t of two degrees 4.302653
    found = estimate([Mean(np.array([[1.0], [2.0], [6.0]]), np.zeros((3, 1)))])
    assert found.middle == pytest.approx(3)
    assert found.high - 3 == pytest.approx(4.302653 * math.sqrt(7 / 3), rel=1e-6)


def test_the_interval_of_a_weighted_mean_is_that_of_its_jackknife() -> None:
    # weights 1, 2, 3 of 1, 2, 6: 23/6; without each one 22/5, 19/4 and 5/3; 36/14 effective episodes
    found = estimate([Mean(np.array([[1.0], [2.0], [6.0]]), np.log([[1.0], [2.0], [3.0]]), weighted=True)])
    assert found.middle == pytest.approx(23 / 6)
    spread = np.std([22 / 5, 19 / 4, 5 / 3]) * math.sqrt(2)
    assert found.high - found.middle == pytest.approx(student.ppf(0.975, 36 / 14 - 1) * spread)


def test_one_episode_says_nothing_of_its_spread() -> None:
    found = estimate(observed(Process(7).episodes(1)))
    assert math.isfinite(found.middle)
    assert (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.parametrize("weighted", [False, True])
def test_weights_beyond_every_number_stay_numbers(weighted: bool) -> None:
    x = np.array([[900.0, 900.0], [-900.0, -900.0], [0.0, 0.0]])
    for means in (
        importance_sampling(LoggedEpisodes(x, np.ones((3, 2)), np.zeros((3, 2))), weighted),
        advantages(LoggedEpisodes(x, np.ones((3, 2)), np.zeros((3, 2))), None, weighted),
    ):
        found = estimate(means)
        assert math.isfinite(found.middle)
        assert found.episodes == pytest.approx(1)
        assert not weighted or found.high == math.inf  # one episode has all the weight: nothing is known without it


def test_where_one_episode_has_all_weight_but_rounding_nothing_is_known_without_it() -> None:
    found = estimate([Mean(np.array([[1.0], [5.0], [9.0]]), np.array([[0.0], [-23.0], [-23.0]]), weighted=True)])
    assert found.episodes > 1
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_effective_episodes_by_hand() -> None:
    assert effective_episodes(np.log([[1.0, 1.0], [1.0, 3.0]])) == pytest.approx(16 / 10)
    assert effective_episodes(np.full((7, 3), -5_000.0)) == pytest.approx(7)
