"""Figures of an iteration: means over its updates, of those alone that had something to measure."""

import math

import pytest
import torch
from tensordict import TensorDict

from gipo.common.errors import UserError
from gipo.common.intervals import wilson_interval
from gipo.learning.losses import PolicyTerms
from gipo.learning.metrics import Iteration, episode_figures
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


def test_what_a_part_without_a_share_says_is_nothing() -> None:
    """Such as a ratio of nothing to nothing."""
    iteration = Iteration()
    for share, figure in ((0.0, math.nan), (0.25, 8.0), (0.75, 4.0)):
        iteration.keep("width", torch.tensor(figure), torch.tensor(share))
    iteration.end_parts()
    assert float(metrics_of(iteration)["width"]) == 5


def test_an_update_is_kept_as_what_it_is_and_one_of_nothing_has_no_figures() -> None:
    iteration, ones, nothing = Iteration(), torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.bool)
    for used, loss, kl, mine in ((~nothing, 2.0, 0.1, 7.0), (nothing, 0.0, 0.0, 0.0)):
        surrogate = PolicyLoss(torch.tensor(loss), ones / 2, 3 * ones, used, {"mine": torch.tensor(mine)}, None)
        terms = PolicyTerms(torch.tensor(9.0), ones, surrogate, torch.tensor(kl), 0 * ones)
        iteration.add(terms, torch.tensor([5.0, 5.0]), torch.tensor([4.0, 4.0]))
    found = metrics_of(iteration)
    expected = {"loss/policy": 1.0, "kl": 0.1, "mine": 7.0, "weight/mean": 0.5, "contribution/mean": 3.0,
                "staleness/age_mean": 4.0, "staleness/masked": 2.0}  # fmt: skip
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected)


def test_figures_hold_no_graph_of_what_they_were_computed_with() -> None:
    for copied in (False, True):
        iteration, learned = Iteration(copied), torch.ones(2, 1, requires_grad=True)
        one, used = learned.sum(), torch.ones(2, 1, dtype=torch.bool)
        surrogate = PolicyLoss(one, 1 * learned, 2 * learned, used, {"mine": one}, None)
        iteration.add(PolicyTerms(one, learned, surrogate, one, 3 * learned), used[:, 0].float(), used[:, 0].float())
        iteration.keep("part", one, torch.tensor(1.0))
        iteration.end_parts()
        iteration.add_values(learned, torch.ones(2, 1), None)
        assert {name for name, figure in metrics_of(iteration).items() if figure.requires_grad} == set()


def test_explained_variance_is_the_mean_over_updates_of_what_was_executed() -> None:
    iteration, target = Iteration(), torch.tensor([[0.0, 1.0], [2.0, 100.0]])
    most = torch.tensor([[True, True], [True, False]])
    iteration.keep("loss/value", torch.tensor(0.0))
    iteration.add_values(target / 2, target, most)  # a quarter of the variance is left
    iteration.add_values(torch.full((2, 2), 9.0), target, most)  # all of it
    iteration.add_values(target, target, torch.zeros(2, 2, dtype=torch.bool))  # nothing was
    assert float(iteration.metrics()["explained_variance"]) == pytest.approx((0.75 + 0) / 2)


EPISODES = TensorDict(
    {
        "return": torch.tensor([1.0, 2.0, 3.0]),
        "success": torch.tensor([True, True, False]),
        "success_last": torch.tensor([True, False, False]),
        "task": torch.tensor([0, 2, 2]),
    },
    batch_size=3,
)


def test_episodes_have_means_with_their_intervals_and_a_success_of_each_task_that_was_evaluated() -> None:
    found = episode_figures(EPISODES, ("reach", "push", "pull"))
    half = 4.302653 / math.sqrt(3)  # of three whose deviation is 1
    expected = {"return": (2, 2 - half, 2 + half), "success": wilson_interval(2, 3),
                "success_last": wilson_interval(1, 3)}  # fmt: skip
    for name, figures in expected.items():
        assert [found.pop(name + end) for end in ("", "_low", "_high")] == pytest.approx(figures, abs=1e-5), name
    assert found == {"success/reach": 1.0, "success/pull": 0.5}


def test_episodes_that_say_no_success_have_a_return_alone() -> None:
    found = episode_figures(EPISODES.select("return"), ("reach",))
    assert found.keys() == {"return", "return_low", "return_high"}
    assert not any("/" in name for name in episode_figures(EPISODES.exclude("task"), ("reach",)))
