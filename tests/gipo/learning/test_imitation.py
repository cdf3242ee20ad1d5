"""What persons did counts by its share of all that teaches, by hand."""

import math

import pytest
import torch

from gipo.learning.imitation import imitation

X = torch.tensor([[0.1, 0.2], [-1.0, -2.0], [-3.0, -5.0], [0.0, 0.0]], requires_grad=True)  # [N, D]
LOG_MU = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [0.0, 0.0], [-1.0, -1.0]])
USED = torch.tensor([True, False, False, True]).unsqueeze(-1).expand(4, 2)


def test_each_of_their_elements_is_one_of_all_that_teach() -> None:
    loss, persons, every = imitation(X, LOG_MU, torch.tensor([0, 1, 2, 0]), USED)
    # one person's step of two elements, two steps of the policy's: (1 + 2) / 6
    assert loss.item() == 0.5
    assert persons.tolist() == [[False] * 2, [True] * 2, [False] * 2, [False] * 2]
    assert every.sum() == 6
    (gradient,) = torch.autograd.grad(loss, X)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0], [-1 / 6, -1 / 6], [0, 0], [0, 0]]))


def test_among_themselves_it_is_their_mean() -> None:
    loss, *_ = imitation(X, LOG_MU, torch.tensor([2, 1, 1, 2]), torch.zeros(4, 2, dtype=torch.bool))
    assert loss.item() == (1 + 2 + 3 + 5) / 4


def test_nobody_is_nothing_and_what_is_impossible_is_left_out() -> None:
    loss, *_ = imitation(X, LOG_MU, torch.tensor([0, 2, 2, -1]), USED)
    assert loss.item() == 0
    x = X.detach().clone()
    x[1, 0] = -math.inf
    loss, persons, _ = imitation(x, LOG_MU, torch.tensor([0, 1, 2, 0]), USED)
    assert loss.item() == pytest.approx(2 / 5)
    assert persons.sum() == 1


def test_of_chunks_each_step_has_a_source() -> None:
    x, log_mu = X.detach(), LOG_MU.reshape(2, 2, 2)  # two chunks of two steps
    loss, persons, _ = imitation(x, log_mu, torch.tensor([[0, 1], [2, 0]]), USED)
    assert loss.item() == 0.5
    assert persons[:, 0].tolist() == [False, True, False, False]
    _, persons, _ = imitation(x, log_mu, torch.tensor([1, 0]), USED)  # one for a decision
    assert persons[:, 0].tolist() == [True, True, False, False]


def test_what_the_log_ratio_was_made_with_is_given_back() -> None:
    """A log π of −3, of which an x of −2 was left by a log μ of −1."""
    nothing = torch.zeros(1, 1, dtype=torch.bool)
    loss, *_ = imitation(torch.tensor([[-2.0]]), torch.tensor([[-1.0]]), torch.tensor([1]), nothing)
    assert loss.item() == 3


def test_where_nothing_teaches_the_loss_is_nothing() -> None:
    loss, persons, taught = imitation(X, LOG_MU, torch.tensor([0, 2, 2, -1]), torch.zeros(4, 2, dtype=torch.bool))
    assert loss.item() == 0
    assert not torch.cat([persons, taught]).any()
