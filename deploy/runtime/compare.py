"""How far one policy is from another on the same observations and noise."""

import numpy as np

from deploy.runtime import distributions
from deploy.runtime.latents import LatentMap
from deploy.runtime.layout import Layout
from deploy.runtime.manifest import DISTANCE_NAMES, Manifest
from deploy.runtime.policy import OnnxPolicy
from gipo.common.arrays.precision import alike
from gipo.common.errors import UserError

Outputs = dict[str, np.ndarray]
MOST = 1 << 26  # numbers of all rows that are asked about together


def shift(family: str, before: Outputs, after: Outputs) -> dict[str, float]:
    """Distances of `after` from `before`, of single action dimensions: mean and largest.

    KL(before‖after) and log-probs (of the latents that `before` sampled) in nats, actions in environment units.
    """
    kept = distributions.log_prob(family, before["params"], before["latent"])
    moved = distributions.log_prob(family, after["params"], before["latent"])
    distances = (
        distributions.kl(family, before["params"], after["params"]),
        np.abs(moved - kept),
        _distance(before, after, "action"),
        _distance(before, after, "deterministic_action"),
    )
    return {
        f"{name}_{label}": float(value)
        for name, distance in zip(DISTANCE_NAMES, distances, strict=True)
        for label, value in (("mean", distance.mean()), ("max", distance.max()))
    }


def difference(first: OnnxPolicy, second: OnnxPolicy, observations: np.ndarray) -> dict[str, float]:
    """Distances of the second artifact from the first, as `shift` gives them, on the same observations and noise.

    Args:
        first: of which the distances are.
        second: which must have the same observations, actions and family.
        observations: [B, O], raw.

    Raises:
        UserError: when the two cannot be compared.
    """
    a, b = first.manifest, second.manifest
    _check_equal(a, b, ("family", "parameters_per_dimension", "vision"))
    check_same_robot(a, b)
    if (one := _way(a)) != (other := _way(b)):
        raise UserError(f"one policy makes actions of latents by {one}, the other by {other}: no KL compares them")
    noise = first.noise((len(observations),), np.random.default_rng(1))  # not that of `typical_observations`
    return shift(a.family, first.evaluate(observations, noise), second.evaluate(observations, noise))


def check_same_robot(first: Manifest, second: Manifest) -> None:
    """Refuse two policies of which a robot can run one alone.

    Raises:
        UserError: naming where they differ.
    """
    _check_equal(
        first, second,
        ("observation_names", "observation_units", "action_names", "action_units", "action_low", "action_high"),
    )  # fmt: skip
    if not alike(first.control_rate_hz, second.control_rate_hz):
        raise UserError(
            f"one artifact decides at {first.control_rate_hz:g} Hz, the other at {second.control_rate_hz:g} Hz: the "
            "same action is another motion"
        )


def _check_equal(first: Manifest, second: Manifest, keys: tuple[str, ...]) -> None:
    for key in keys:
        if getattr(first, key) != getattr(second, key):
            raise UserError(f"the artifacts differ in manifest.{key}; they are not policies for one robot")


def _way(manifest: Manifest) -> str:
    """How a policy makes actions of its latents, as a refusal says it."""
    try:
        return LatentMap.of(manifest).way
    except UserError:
        return "a way of its own"


def rows_that_fit(count: int, layout: Layout) -> int:
    """`count`, or of large images fewer: MOST numbers take a quarter of a GiB."""
    return max(1, min(count, MOST // layout.row_size))


def typical_observations(policy: OnnxPolicy, count: int) -> np.ndarray:
    """[count, R] float32, drawn as the policy's normaliser describes them (standard normal without one).

    There are fewer of large images: as many as `rows_that_fit`.
    """
    normaliser, count = policy.manifest.normaliser, rows_that_fit(count, policy.manifest.layout)
    drawn = np.random.default_rng(0).standard_normal((count, policy.manifest.observation_size))
    if normaliser is not None:
        drawn = np.array(normaliser.mean) + np.array(normaliser.scale) * drawn
    return with_vision(policy.manifest.layout, drawn.astype(np.float32), np.random.default_rng(0))


def with_vision(layout: Layout, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows [N, R] of states [N, O], with random images and instructions where the policy sees any."""
    if layout.vision is None:
        return states
    pixels = rng.integers(0, 256, (len(states), layout.vision.pixels), np.uint8)
    text = rng.integers(97, 123, (len(states), layout.vision.instruction_bytes), np.uint8)
    text[np.arange(text.shape[1]) >= rng.integers(1, text.shape[1] + 1, (len(states), 1))] = 0
    return np.concatenate([states, pixels, text], axis=1)  # float32, which states are


def _distance(before: Outputs, after: Outputs, name: str) -> np.ndarray:
    return np.abs(after[name].astype(np.float64) - before[name])
