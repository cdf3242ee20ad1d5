"""One-sample gradient estimators g = c(ρ, A)·A·∂log π/∂θ on the GridWorld, with their exact moments.

The coefficient c is what autograd makes of the objectives that training uses, in float64.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gipo.adaptive import AgeAwareGIPO
from gipo.baselines import ASPO, DPPO, GMPO, GSPO, M2PO, MIS, TIS, VESPO, DecoupledPPO, binary_kl
from gipo.commands.studies.gradients.mdp import Array, Cells
from gipo.objectives import GIPO, SAPO, Elements, NoClip, Objective, PPOClip, masked_terms

BINS = 33  # of the default policy: its tokens have this probability when it knows nothing
MANY = 10_000  # samples of a batch that an objective weighs as a whole

SIGMAS = (0.1, 0.3, 0.5, 1.0, 2.0)
GIPOS: dict[str, Objective] = {f"gipo-{sigma}": GIPO(sigma=sigma) for sigma in SIGMAS}
# Both temperatures for bad actions that are in use: that of SAPO's paper, our default, and the GIPO authors'.
SAPOS: dict[str, Objective] = {f"sapo-{tau}": SAPO(tau_pos=1.0, tau_neg=tau) for tau in (1.05, 2.0)}
# With the parameters of their authors; of one dimension, where GMPO and GSPO are PPO with another clip.
RIVALS: dict[str, Objective] = {
    "tis": TIS(),
    "mis": MIS(),
    "m2po": M2PO(),
    "vespo": VESPO(),
    "dppo-tv": DPPO(),
    "dppo-kl": DPPO(delta=0.05, change=binary_kl),
    "gspo": GSPO(),
    "gmpo": GMPO(),
}
AGES = (0, 1, 4, 16)  # versions
AGED: dict[str, Objective] = {
    "decoupled-16": DecoupledPPO(),  # of fresh data it is PPO
    **{f"age-{age}": AgeAwareGIPO(sigma_fresh=0.3, sigma_age=0.3) for age in AGES},
    **{f"outward-{age}": AgeAwareGIPO(sigma_fresh=0.3, sigma_age=0.3, outward_only=True) for age in AGES},
}
ESTIMATORS: dict[str, Objective] = {
    "noclip": NoClip(),
    "ppo": PPOClip(clip=0.2),
    **SAPOS,
    "aspo": ASPO(),
    **RIVALS,
    **GIPOS,
    **AGED,  # after GIPO, which some of them are of fresh data: a tie is the plain one's
}


def age_of(name: str) -> float:
    """Age of the data, in versions, that the estimator `name` is given."""
    return float(name.rpartition("-")[2]) if name in AGED else 0.0


class Response(NamedTuple):
    """What an objective makes of each element, float64: its own figures, and autograd's −dloss/dx = c(ρ, A)·A."""

    weight: Array
    contribution: Array
    coefficient: Array


def response(
    objective: Objective, log_ratio: Array, advantage: Array, age: float = 0.0, log_prob: Array | None = None
) -> Response:
    """Evaluate at x and A of one shape, each element a sample of its own whose one dimension it is.

    The behaviour entropy, where it matters, is the largest there is.

    Args:
        objective: what to evaluate.
        log_ratio: x, nats.
        advantage: A.
        age: k of all of them, versions.
        log_prob: log π, nats; that of a token with μ = 1/BINS unless given.
    """
    x = torch.tensor(log_ratio, dtype=torch.float64).reshape(-1, 1).requires_grad_()
    a = torch.tensor(advantage, dtype=torch.float64).reshape(-1, 1)
    used, one = torch.ones_like(x, dtype=torch.bool), torch.ones_like(x)
    known = (x.detach() - math.log(BINS)).clamp(max=0.0) if log_prob is None else torch.tensor(log_prob).reshape(-1, 1)
    terms, _ = masked_terms(objective, Elements(x, a, used, age * one, one, known))
    (gradient,) = torch.autograd.grad(terms.loss.sum(), x)
    return Response(*(part.numpy().reshape(log_ratio.shape) for part in (*terms[1:], -gradient)))


def estimates(objective: Objective, cells: Cells, age: float = 0.0) -> Array:
    """g [C, A]: what the estimator says when each action is drawn, in a batch of many where that matters."""
    log_prob = np.log(cells.probability) + cells.log_ratio
    if not objective.needs_whole_batch:
        return response(objective, cells.log_ratio, cells.advantage, age, log_prob).coefficient * cells.score
    found = []
    for parts in zip(cells.probability, cells.log_ratio, cells.advantage, log_prob, strict=True):
        counts = np.rint(MANY * parts[0]).astype(int)
        x, advantage, known = (np.repeat(part, counts) for part in parts[1:])
        found.append(response(objective, x, advantage, age, known).coefficient[counts.cumsum() - 1])
    return np.array(found) * cells.score


class Moments(NamedTuple):
    """Exact moments of an estimator in every cell of the study, [C] each."""

    mean: Array
    bias: Array
    variance: Array
    zero: NDArray[np.bool_]  # zero for every action: no estimator at all

    def mse(self, samples: int) -> Array:
        """Mean squared error of the mean of `samples` draws: bias² + variance/N."""
        return self.bias**2 + self.variance / samples


def true_gradient(cells: Cells) -> Array:
    """E g of No-Clip [C], which is unbiased."""
    return (cells.probability * estimates(NoClip(), cells)).sum(1)


def moments(objective: Objective, cells: Cells, truth: Array, age: float = 0.0) -> Moments:
    """Exact moments over a ∼ μ(·|S0), the bias against the `true_gradient`."""
    g = estimates(objective, cells, age)
    mean = (cells.probability * g).sum(1)
    bias = np.abs(mean - truth)
    variance = (cells.probability * (g - mean[:, None]) ** 2).sum(1)
    return Moments(mean, bias, variance, np.all(g == 0, axis=1))
