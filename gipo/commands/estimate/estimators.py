"""Off-policy estimates of what a policy would return, from episodes of others and their exact log-probs.

n episodes lie in rows, their T decisions in columns. x = log π(a|s) − log μ(a|s) is the log-ratio of a whole decision,
ρ its exponential, R_t = γ^t·r_t a discounted reward, G_t = R_t + R_{t+1} + … what was returned from decision t on, and
w_t = ρ_0·…·ρ_t. Where an episode has ended, x and R are 0, so that its weight stays as it was; x is 0 as well where a
person or a gate chose in the policy's place: they are part of what the policy meets.

Every estimate is a sum of means over episodes, some of them weighted, and its interval is that of a jackknife over
episodes, which are independent where their decisions are not.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import t as student

Array = NDArray[np.float64]
LEVEL = 0.95
LARGEST = 300.0  # nats, of the logarithm of a weight: beyond it a mean is that of one episode, and e^709 is none
ALMOST_NONE = 1e-9  # of all weight: what is left is rounding


class LoggedEpisodes(NamedTuple):
    """Episodes of logs.

    Args:
        log_ratio: x [n, T], nats.
        reward: R [n, T], discounted to the beginning of the episode.
        baseline: V̂ [n, T], what G_t is expected to be by what was seen at t; any, also 0, leaves estimates unbiased.
    """

    log_ratio: Array
    reward: Array
    baseline: Array

    @property
    def to_go(self) -> Array:
        """G_t [n, T]."""
        return self.reward[:, ::-1].cumsum(1)[:, ::-1]


class Mean(NamedTuple):
    """Σ_t of a mean over episodes: 1/n Σ_i w_it·v_it, or, weighted, Σ_i w_it·v_it / Σ_i w_it.

    Args:
        value: v [n, T].
        log_weight: log w [n, T].
        weighted: whether by the sum of the weights, in place of n.
    """

    value: Array
    log_weight: Array
    weighted: bool = False


class OffPolicyEstimate(NamedTuple):
    """A figure, the ends of its 95 % interval, and how many episodes it rests on.

    Args:
        middle: the estimate.
        low: lower end.
        high: upper end.
        episodes: effective ones: the least over t of (Σ_i w_it)² / Σ_i w_it².
    """

    middle: float
    low: float
    high: float
    episodes: float


def observed(episodes: LoggedEpisodes) -> list[Mean]:
    """What the policies that acted returned: the mean of G_0."""
    first = episodes.to_go[:, :1]
    return [Mean(first, np.zeros_like(first))]


def importance_sampling(episodes: LoggedEpisodes, weighted: bool = False) -> list[Mean]:
    """The mean of w_T·G_0 (Precup, Sutton & Singh 2000): unbiased, and mostly noise where episodes are long.

    Weighted it is biased by 1/n, and never beyond what was observed.
    """
    return [Mean(episodes.to_go[:, :1], episodes.log_ratio.sum(1, keepdims=True), weighted)]


def per_decision(episodes: LoggedEpisodes, weighted: bool = False) -> list[Mean]:
    """The mean of Σ_t w_t·R_t: a reward is weighed by the decisions before it alone (Precup, Sutton & Singh 2000).

    Weighted it is the consistent one of Thomas (2015).
    """
    return [Mean(episodes.reward, episodes.log_ratio.cumsum(1), weighted)]


def advantages(episodes: LoggedEpisodes, last: int | None = None, weighted: bool = True) -> list[Mean]:
    """The mean of G_0 + Σ_t (w_t − w_{t−1})·(G_t − V̂_t): what was observed, and what other decisions would make of it.

    Of all decisions, and not weighted, it is the doubly robust recursion of Jiang & Li (arXiv 1511.03722) with a model
    of states alone, V_t = V̂_t + ρ_t·(r_t + γ·V_{t+1} − V̂_t), summed by parts: unbiased whatever the baseline is.

    Where weights have the ratios of the `last` decisions alone, as Guo, Thomas & Brunskill (2017) weigh rewards, it
    knows what a decision is worth, but not that those before have led elsewhere. Of one decision it is the surrogate
    that policy gradients climb (Kakade & Langford 2002): right to the first order in how far the policies are apart.

    Args:
        episodes: of the logs.
        last: decisions in a weight; all there are where it is None.
        weighted: by the sums of the weights.
    """
    now, before = window(episodes.log_ratio, last)
    advantage = episodes.to_go - episodes.baseline
    return [*observed(episodes), Mean(advantage, now, weighted), Mean(-advantage, before, weighted)]


def less_observed(means: list[Mean], episodes: LoggedEpisodes) -> list[Mean]:
    """The difference to what was observed: of the same episodes, so that what both share is not in its interval."""
    return [*means, *(each._replace(value=-each.value) for each in observed(episodes))]


def window(log_ratio: Array, count: int | None = None) -> tuple[Array, Array]:
    """Logarithms of the weights of the last `count` decisions up to each one, and up to the one before it, [n, T]."""
    whole = log_ratio.cumsum(1)
    if count is None or count >= log_ratio.shape[1]:
        return whole, _before(whole)
    now = whole.copy()
    now[:, count:] -= whole[:, :-count]
    return now, now - log_ratio


def estimate(means: list[Mean]) -> OffPolicyEstimate:
    """The estimate with its interval: θ ± t·s, s² = (n − 1)/n·Σ_i (θ₋ᵢ − θ̄)², θ₋ᵢ without episode i.

    Student's t has as many degrees of freedom as there are effective episodes, less one. Where these are few, and
    weights so unlike, the interval is too narrow all the same.
    """
    count = len(means[0].value)
    found = [_left_out(each) for each in means]
    middle, without = float(sum(whole for whole, _ in found)), np.sum([each for _, each in found], 0)
    spread = math.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    effective = min(effective_episodes(each.log_weight) for each in means)
    # Of one episode, nothing is known of the spread.
    half = float(student.ppf((1 + LEVEL) / 2, effective - 1)) * spread if effective > 1 else math.inf
    half = math.inf if math.isnan(half) else half
    return OffPolicyEstimate(middle, middle - half, middle + half, effective)


def _left_out(mean: Mean) -> tuple[float, Array]:
    """A mean of n episodes, and [n] without each of them; NaN where that one has all the weight."""
    count = len(mean.value)
    if mean.weighted:
        weight = np.exp(mean.log_weight - logsumexp(mean.log_weight, 0) + math.log(count))  # of mean 1
        below = count - weight
    else:
        weight = np.exp(np.clip(mean.log_weight, -LARGEST, LARGEST))
        below = np.full_like(weight, count - 1)
    part = weight * mean.value
    above = part.sum(0)
    known = below > ALMOST_NONE * count
    without = np.where(known, above - part, math.nan) / np.where(known, below, 1)
    return float(above.sum() / count), without.sum(1)


def effective_episodes(log_weight: Array) -> float:
    """The least over columns of (Σ w)² / Σ w², of weights [n, T] by their logarithms."""
    return float(np.exp(2 * logsumexp(log_weight, 0) - logsumexp(2 * log_weight, 0)).min())


def _before(log_weight: Array) -> Array:
    """The weights up to the decision before each one: those of none before the first."""
    return np.pad(log_weight[:, :-1], ((0, 0), (1, 0)))
