"""Questions to ask a policy: random and extreme observations, and the golden vectors picked from them."""

from collections.abc import Callable

import numpy as np

from deploy.export.graph import folded_normaliser, layout_of
from deploy.runtime.compare import Outputs, rows_that_fit, with_vision
from deploy.runtime.manifest import Golden
from gipo.policies import Policy, TokenPolicy

Run = Callable[[np.ndarray, np.ndarray], Outputs]


def observations(policy: Policy, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows [count + extremes, R] float32: `states`, with random images and instructions where the policy sees any.

    There are fewer rows of large images: as many as `rows_that_fit`.
    """
    layout = layout_of(policy)
    return with_vision(layout, states(policy, rows_that_fit(count, layout), rng), rng)


def states(policy: Policy, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count + extremes, O] float32: as the normaliser saw them, every fourth five times wider, then far outside.

    Without a normaliser the network sees raw values, so there the extremes stay within what float32 can multiply.
    """
    size = policy.spaces.observation_size
    mean, scale, far = np.zeros(size), np.ones(size), [10.0, 1e3]
    if policy.normaliser is not None:
        mean, scale = (values.astype(np.float64) for values in folded_normaliser(policy))
        far = [10.0, 1e4, 1e30, 3e38]
    spread = np.where(np.arange(count) % 4 == 3, 5.0, 1.0)[:, None]
    usual = mean + scale * spread * rng.standard_normal((count, size))
    extreme = [np.zeros(size), mean]
    extreme += [sign * distance * np.maximum(scale, 1.0) for distance in far for sign in (-1, 1)]
    extreme += [distance * rng.choice(np.array([-1.0, 1.0]), size) for distance in far]
    return np.concatenate([usual, np.clip(np.array(extreme), -3e38, 3e38)]).astype(np.float32)


def noise(policy: Policy, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Noise [rows, K] float32, as the policy's sampling head takes it."""
    shape = (rows, layout_of(policy).decision_size)
    if policy.noise_kind == "uniform":
        return rng.random(shape, dtype=np.float32)
    return rng.standard_normal(shape, dtype=np.float32)


def golden_vectors(policy: Policy, run: Run, seed: int, count: int = 16, choice: int = 8) -> Golden:
    """Golden vectors from `run`: the questions whose answers hang least on the last bit, a quarter of them extreme.

    Args:
        policy: whose they are.
        run: answers by it.
        seed: of the questions.
        count: vectors.
        choice: usual questions of which each is the best.
    """
    rng, usually = np.random.default_rng(seed), choice * count
    asked, layout = states(policy, usually, rng), layout_of(policy)
    if layout.vision is not None:
        asked = np.column_stack([asked, np.arange(len(asked), dtype=np.float32)])
    seen, drawn = layout.rows(asked), noise(policy, len(asked), rng)
    answers = run(seen, drawn)
    share = np.ones_like(drawn)
    if isinstance(policy, TokenPolicy):
        drawn, share = _middle(answers["params"], answers["latent"])
        answers = run(seen, drawn)
    certainty = np.where(share > 1e-4, margin(policy, answers["params"]), 0).min(-1)
    usual = np.argsort(-certainty[:usually], kind="stable")[: count - count // 4]
    extreme = usually + np.argsort(-certainty[usually:], kind="stable")[: count // 4]
    rows = np.sort(np.concatenate([usual, extreme]))
    kept = {"observation": asked, "noise": drawn, **answers}
    del kept["params"]
    return Golden(**{name: tuple(map(tuple, value[rows].tolist())) for name, value in kept.items()})


def cdf(params: np.ndarray) -> np.ndarray:
    """Cumulative probabilities [..., V] of logits, float64."""
    weights = np.exp(params.astype(np.float64) - params.max(-1, keepdims=True))
    return np.cumsum(weights / weights.sum(-1, keepdims=True), -1)


def margin(policy: Policy, params: np.ndarray) -> np.ndarray:
    """How much larger the largest logit is than the next [..., D]; infinite for a gaussian, which has no ties."""
    if not isinstance(policy, TokenPolicy):
        return np.full(params.shape[:-1], np.inf)
    top = np.partition(params, -2, axis=-1)
    return top[..., -1] - top[..., -2]


def _middle(params: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Noise in the middle of each token's share of the CDF, where rounding cannot choose another; and the share."""
    steps = np.concatenate([np.zeros((*tokens.shape, 1)), cdf(params)], -1)
    low = np.take_along_axis(steps, tokens[..., None], -1)[..., 0]
    high = np.take_along_axis(steps, tokens[..., None] + 1, -1)[..., 0]
    return ((low + high) / 2).astype(np.float32), high - low
