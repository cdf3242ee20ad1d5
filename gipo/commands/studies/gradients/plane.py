"""The bias-variance plane: moments of every estimator in every cell of the GridWorld, and who dominates whom."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gipo.commands.studies.gradients.estimators import ESTIMATORS, Moments, age_of, moments, true_gradient
from gipo.commands.studies.gradients.mdp import ON_POLICY, Cells, cells
from gipo.objectives import GIPO

SAMPLES = (1, 10, 100, 1000)
CURVE = np.geomspace(0.05, 20, 400)  # σ of GIPO's curve
ROUNDING = 1e-12  # differences below this are none


class Study(NamedTuple):
    """Moments of every estimator in every cell, and of GIPO along a curve of σ."""

    cells: Cells
    found: dict[str, Moments]
    curve: list[Moments]


def study() -> Study:
    """Compute everything: some thousand sums over four actions."""
    grid = cells()
    truth = true_gradient(grid)
    return Study(
        grid,
        {name: moments(objective, grid, truth, age_of(name)) for name, objective in ESTIMATORS.items()},
        [moments(GIPO(sigma=float(sigma)), grid, truth) for sigma in CURVE],
    )


def lowest(result: Study, cell: int, n: int, among: Mapping[str, object]) -> str:
    """Name of the estimator with the lowest error, without those that are zero for every action."""
    errors = {name: result.found[name].mse(n)[cell] for name in among if not result.found[name].zero[cell]}
    return min(errors, key=lambda name: float(errors[name]))


def dominates(one: Moments, other: Moments) -> NDArray[np.bool_]:
    """Where `one` has neither more bias nor more variance than `other`, and less of one of them, [C] bool."""
    bias, variance = one.bias - other.bias, one.variance - other.variance
    return (bias <= ROUNDING) & (variance <= ROUNDING) & ((bias < -ROUNDING) | (variance < -ROUNDING))


def off_policy(result: Study) -> NDArray[np.bool_]:
    """Where the behaviour is not the target itself, [C] bool."""
    return np.array([behaviour != ON_POLICY for _, behaviour in result.cells.names])
