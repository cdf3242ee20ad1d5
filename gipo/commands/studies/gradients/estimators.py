"""One-sample gradient estimators g = c(ρ, A)·A·∂log π/∂θ on the GridWorld, with their exact moments.

The coefficient c is what autograd makes of the objectives that training uses, in float64.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gipo.baselines import ASPO
from gipo.commands.studies.gradients.mdp import Array, Cells
from gipo.objectives import GIPO, SAPO, NoClip, Objective, PPOClip

SIGMAS = (0.1, 0.3, 0.5, 1.0, 2.0)
GIPOS: dict[str, Objective] = {f"gipo-{sigma}": GIPO(sigma=sigma) for sigma in SIGMAS}
# Both temperatures for bad actions that are in use: that of SAPO's paper, our default, and the GIPO authors'.
SAPOS: dict[str, Objective] = {f"sapo-{tau}": SAPO(tau_pos=1.0, tau_neg=tau) for tau in (1.05, 2.0)}
ESTIMATORS: dict[str, Objective] = {
    "noclip": NoClip(),
    "ppo": PPOClip(clip=0.2),
    **SAPOS,
    "aspo": ASPO(),
    **GIPOS,
}


class Response(NamedTuple):
    """What an objective makes of each element, float64: its own figures, and autograd's −dloss/dx = c(ρ, A)·A."""

    weight: Array
    contribution: Array
    coefficient: Array


def response(objective: Objective, log_ratio: Array, advantage: Array) -> Response:
    """Evaluate at x and A of one shape [..., D]; behaviour entropy, where it matters, is the largest there is."""
    x = torch.tensor(log_ratio, dtype=torch.float64, requires_grad=True)
    context = {"entropy": torch.ones_like(x)} if objective.needs_entropy else {}
    terms = objective(x, torch.tensor(advantage, dtype=torch.float64), **context)
    (gradient,) = torch.autograd.grad(terms.loss.sum(), x)
    return Response(terms.weight.numpy(), terms.contribution.numpy(), -gradient.numpy())


def estimates(objective: Objective, cells: Cells) -> Array:
    """g [C, A]: what the estimator says when each action is drawn."""
    return response(objective, cells.log_ratio, cells.advantage).coefficient * cells.score


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


def moments(objective: Objective, cells: Cells, truth: Array) -> Moments:
    """Exact moments over a ∼ μ(·|S0), the bias against the `true_gradient`."""
    g = estimates(objective, cells)
    mean = (cells.probability * g).sum(1)
    bias = np.abs(mean - truth)
    variance = (cells.probability * (g - mean[:, None]) ** 2).sum(1)
    return Moments(mean, bias, variance, np.all(g == 0, axis=1))
