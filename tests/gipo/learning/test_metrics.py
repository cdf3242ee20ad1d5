"""Figures of an iteration: means over its updates, of those alone that had something to measure."""

import pytest
import torch

from gipo.common.errors import UserError
from gipo.learning.losses import PolicyTerms
from gipo.learning.metrics import Iteration
from gipo.objective import PolicyLoss


def metrics_of(iteration: Iteration) -> dict[str, torch.Tensor]:
    iteration.add_values(torch.zeros(2), torch.ones(2), None)
    return iteration.metrics()


def test_an_update_that_had_nothing_to_measure_says_nothing() -> None:
    iteration = Iteration(copied=False)
    for mean, persons in ((2.0, [True, False]), (0.0, [False, False]), (1.0, [True, True])):
        iteration.keep_mean("loss/imitation", torch.tensor(mean), torch.tensor(persons))
    found = metrics_of(iteration)
    assert float(found["loss/imitation"]) == 1.5
    assert not any("any of" in name for name in found)


def test_nor_do_parts_of_a_batch() -> None:
    iteration = Iteration(copied=False)
    nothing, some = torch.tensor([False]), torch.tensor([True])
    for share, mean, counted in ((0.0, 0.0, nothing), (1.0, 3.0, some)):  # one part of two has a person
        iteration.keep_mean("loss/imitation", torch.tensor(mean), counted, torch.tensor(share))
    iteration.end_parts()
    for _ in range(2):  # none has
        iteration.keep_mean("loss/imitation", torch.tensor(0.0), nothing, torch.tensor(0.0))
    iteration.end_parts()
    assert float(metrics_of(iteration)["loss/imitation"]) == 3.0


@pytest.mark.parametrize("name", ["kl", "loss/policy", "loss/value", "ess/all", "explained_variance"])
def test_a_figure_of_an_objective_stands_in_the_place_of_no_metric(name: str) -> None:
    """As `kl` it would have moved the weight of the anchor."""
    ones, used = torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool)

    def metrics_with(figure: str) -> dict[str, torch.Tensor]:
        iteration = Iteration()
        iteration.keep("loss/value", torch.tensor(0.0))
        surrogate = PolicyLoss(torch.tensor(0.0), ones, ones, used, {figure: torch.tensor(7.0)}, None)
        terms = PolicyTerms(torch.tensor(0.0), ones, surrogate, torch.tensor(0.1), 0 * ones)
        iteration.add(terms, ones[:, 0], ones[:, 0])
        return metrics_of(iteration)

    assert float(metrics_with("mine")["mine"]) == 7
    assert float(metrics_with("mine")["kl"]) == pytest.approx(0.1)
    with pytest.raises(UserError, match=f"gives a figure '{name}', and so is a metric called"):
        metrics_with(name)
