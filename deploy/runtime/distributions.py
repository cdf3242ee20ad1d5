"""The distribution of an action from the `params` output of an artifact, in numpy: no torch on the robot.

Shapes: params [..., D, P] (logits of V = P bins, or mean and log-std); latent, log_prob, KL [..., D]. Computed in
float64, so that an audit's own rounding is never what it finds.
"""

import math

import numpy as np

from gipo.common.errors import UserError


def log_prob(family: str, params: np.ndarray, latent: np.ndarray) -> np.ndarray:
    """Log-probability (token) or log-density before squashing (gaussian) of each dimension, nats, float64.

    Raises:
        UserError: when a token is none of the policy's bins.
    """
    if family == "gaussian":
        mean, log_std = params[..., 0].astype(np.float64), params[..., 1].astype(np.float64)
        z = (latent - mean) * np.exp(-log_std)
        return -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)
    tokens = np.asarray(latent).astype(np.int64)
    bins = params.shape[-1]
    if not np.array_equal(tokens, latent) or tokens.min() < 0 or tokens.max() >= bins:
        raise UserError(f"a token must be a whole number from 0 to {bins - 1}, got {np.asarray(latent).tolist()}")
    return np.take_along_axis(log_softmax(params), tokens[..., None], -1)[..., 0]


def mode(family: str, params: np.ndarray) -> np.ndarray:
    """Most likely latent [..., D] for params [..., D, P]: int64 tokens, or float32 means."""
    # Not a view of every second number, which logs do not take.
    return np.ascontiguousarray(params[..., 0]) if family == "gaussian" else params.argmax(-1)


def kl(family: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """KL(first‖second) of each action dimension, nats."""
    if family == "gaussian":
        (m1, s1), (m2, s2) = (np.moveaxis(params.astype(np.float64), -1, 0) for params in (first, second))
        return s2 - s1 + 0.5 * (np.exp(2 * (s1 - s2)) + (m1 - m2) ** 2 * np.exp(-2 * s2)) - 0.5
    log_first, log_second = log_softmax(first), log_softmax(second)
    return (np.exp(log_first) * (log_first - log_second)).sum(-1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log softmax(logits) over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
