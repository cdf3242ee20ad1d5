"""The contract of objectives of somebody's own: what they remember, and how they are called."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gipo.common.errors import UserError
from gipo.module import GIPOModule
from gipo.objective import blanked, since
from gipo.objectives import ContextObjective, Elements, Figures, Terms, masked_mean, policy_loss

X, A = torch.tensor([[0.5, -0.5]]), torch.tensor([2.0])


@dataclass(frozen=True)
class Drifting(ContextObjective):
    """Weighs a batch by how far earlier ones were: w = 1/(1 + m), m ← ½m + ½·mean |x|."""

    start: Any = (1.0,)

    def memory(self) -> Tensor | None:
        return torch.tensor(self.start) if isinstance(self.start, tuple) else self.start

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        assert seen.memory is not None
        weight = (1 / (1 + seen.memory)).expand_as(seen.log_ratio)
        rho = seen.log_ratio.exp()
        return Terms(-weight * rho * seen.advantage, weight, weight * rho.detach()), {}

    def remember(self, seen: Elements) -> Tensor | None:
        assert seen.memory is not None
        return 0.5 * seen.memory + 0.5 * masked_mean(seen.log_ratio.abs(), seen.used)


def test_what_is_remembered_of_x_leads_no_gradient_back() -> None:
    x = X.clone().requires_grad_()
    first = policy_loss(Drifting(), x, A)
    assert first.memory is not None
    assert first.memory.tolist() == [0.75]
    assert not first.memory.requires_grad
    first.loss.backward()
    policy_loss(Drifting(), x, A, memory=first.memory).loss.backward()


def test_one_that_remembers_is_called_as_any_other_before_its_first_batch() -> None:
    assert Drifting()(X, A).weight.tolist() == [[0.5, 0.5]]
    assert Drifting()(X, A, memory=torch.tensor([3.0])).weight.tolist() == [[0.25, 0.25]]
    assert policy_loss(Drifting(), X, A).weight.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("start", [1.0, [0.0]], ids=repr)
def test_a_memory_that_is_no_tensor_is_refused_by_name(start: Any) -> None:
    for use in (lambda made: GIPOModule(objective=made), lambda made: made(X, A), lambda made: policy_loss(made, X, A)):
        with pytest.raises(UserError, match=r"test_objective\.Drifting\.memory must return a tensor.*or None; got"):
            use(Drifting(start))


def test_what_one_run_remembers_is_not_where_the_next_one_begins() -> None:
    start = torch.zeros(1)
    memory = GIPOModule(objective=Drifting(start)).objective_memory
    assert memory is not None
    memory += 1
    assert start.tolist() == [0.0]
    assert Drifting()(X, A, memory=None).weight.tolist() == [[0.5, 0.5]]


def test_what_a_later_version_did_or_nobody_dates_is_of_age_0() -> None:
    found = since(torch.tensor([[-3.0], [torch.nan], [0.0], [2.0]]), X)
    assert found is not None
    assert found.flatten().tolist() == [0, 0, 0, 2]


def test_fresh_data_are_remembered_and_what_a_later_version_did_is_not() -> None:
    for age, memory in ((0, 0.5 + 0.25), (3, 0.5 + 0.25), (-1, 0.5)):
        found = policy_loss(Drifting(), X, A, age=torch.tensor([age])).memory
        assert found is not None
        assert found.tolist() == [memory]


def test_what_is_not_used_is_0_in_everything_that_an_objective_sees() -> None:
    used = torch.tensor([[True, False]])
    log_prob = torch.tensor([[-1.0, torch.nan]], requires_grad=True)
    found = blanked(
        Elements(torch.tensor([[0.5, torch.inf]]), torch.tensor([[2.0, torch.nan]]), used, log_prob=log_prob)
    )
    assert found.log_ratio.tolist() == [[0.5, 0]]
    assert found.advantage.tolist() == [[2, 0]]
    assert found.log_prob is not None
    assert found.log_prob.tolist() == [[-1, 0]]
    assert not found.log_prob.requires_grad
