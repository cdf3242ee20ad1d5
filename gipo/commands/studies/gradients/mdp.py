"""The 2×2 GridWorld of the GIPO paper (arXiv 2603.03955), where every expectation is a finite sum.

States S0 (top left), S1 (top right), S2 (bottom left), and the goal (bottom right), which absorbs. Actions up, down,
left, right are deterministic; a move into a wall stays. Reward −1 a step, γ = .9.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

Array = NDArray[np.float64]

GAMMA = 0.9
GOAL = 3
NEXT = np.array([[0, 2, 0, 1], [1, GOAL, 0, 1], [0, 2, 2, GOAL]])  # [state, action]
RIGHT = 3  # the action whose logit in S0 the gradient is of

# Action probabilities in S0, S1, S2.
TARGETS: dict[str, Array] = {
    "PI-1": np.array([[0.2, 0.3, 0.2, 0.3], [0.15, 0.45, 0.25, 0.15], [0.15, 0.15, 0.25, 0.45]]),
    "PI-2": np.array([[0.1, 0.4, 0.1, 0.4], [0.1, 0.6, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]]),
    "PI-3": np.array([[0.05, 0.45, 0.05, 0.45], [0.05, 0.75, 0.1, 0.1], [0.05, 0.1, 0.1, 0.75]]),
}
NOISY: dict[str, Array] = {
    "n1": np.array([[0.30, 0.20, 0.30, 0.20], [0.40, 0.15, 0.10, 0.35], [0.20, 0.35, 0.30, 0.15]]),
    "n2": np.array([[0.25, 0.30, 0.20, 0.25], [0.20, 0.45, 0.15, 0.20], [0.15, 0.25, 0.15, 0.45]]),
    "n3": np.array([[0.20, 0.35, 0.20, 0.25], [0.15, 0.40, 0.20, 0.25], [0.25, 0.15, 0.15, 0.45]]),
    "n4": np.array([[0.32, 0.18, 0.28, 0.22], [0.28, 0.24, 0.28, 0.20], [0.24, 0.20, 0.30, 0.26]]),
    "n5": np.array([[0.12, 0.38, 0.12, 0.38], [0.12, 0.52, 0.21, 0.15], [0.10, 0.16, 0.22, 0.52]]),
}
ON_POLICY = "D"  # the behaviour that is the target itself


def behaviours(target: Array) -> dict[str, Array]:
    """The behaviour policies A to G [S, A] of a target: mixtures, state by state."""
    uniform = np.full_like(target, 0.25)
    right, down = softmax([0.0, 0.0, 0.0, 1.0]), softmax([0.0, 1.0, 0.0, 0.0])
    return {
        "A": uniform,
        "B": 0.4 * uniform + 0.3 * right + 0.3 * down,
        "C": 0.2 * uniform + 0.4 * right + 0.4 * down,
        ON_POLICY: target,
        "E": 0.45 * NOISY["n1"] + 0.35 * NOISY["n4"] + 0.2 * uniform,
        "F": 0.45 * NOISY["n2"] + 0.35 * NOISY["n5"] + 0.2 * uniform,
        "G": 0.4 * NOISY["n3"] + 0.3 * NOISY["n4"] + 0.3 * NOISY["n5"],
    }


def values(policy: Array) -> Array:
    """V [S] of a policy [S, A], by exact solution of V = −1 + γ·P_π·V; the goal is worth 0."""
    transition = np.zeros((len(policy), GOAL + 1))
    for state, action in np.ndindex(*NEXT.shape):
        transition[state, NEXT[state, action]] += policy[state, action]
    value = np.linalg.solve(np.eye(GOAL) - GAMMA * transition[:, :GOAL], -np.ones(GOAL))
    return np.asarray(value, dtype=np.float64)


def advantages(policy: Array) -> Array:
    """A(s, a) [S, A] = −1 + γ·V(s′) − V(s)."""
    value = values(policy)
    return -1 + GAMMA * np.append(value, 0.0)[NEXT] - value[:, None]


class Cells(NamedTuple):
    """Every target with every behaviour, in S0: names [C], and for each action [C, A] what an estimator needs."""

    names: list[tuple[str, str]]
    probability: Array  # μ(a|S0)
    log_ratio: Array  # log π(a|S0) − log μ(a|S0)
    advantage: Array
    score: Array  # ∂log π(a|S0)/∂θ(S0, right) of a tabular softmax policy


def cells() -> Cells:
    """The 21 cells of the study."""
    names, probability, policy, advantage = [], [], [], []
    for target, pi in TARGETS.items():
        for behaviour, mu in behaviours(pi).items():
            names.append((target, behaviour))
            probability.append(mu[0])
            policy.append(pi[0])
            advantage.append(advantages(pi)[0])
    mu, pi = np.array(probability), np.array(policy)
    # ∂log π(a)/∂θ(right) = 1[a = right] − π(right)
    score = np.eye(mu.shape[1])[RIGHT] - pi[:, RIGHT, None]
    return Cells(names, mu, np.log(pi) - np.log(mu), np.array(advantage), score)
