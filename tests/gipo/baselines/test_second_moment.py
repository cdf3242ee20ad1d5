"""The mask of M2PO by hand, and against the definition: leave the largest out, one after another."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gipo.baselines import M2PO, largest_left_out
from gipo.objectives import policy_loss


def test_the_largest_leave_until_the_mean_of_the_others_is_small() -> None:
    square = torch.tensor([0.01, 0.09, 0.25, 0.04, 1.00])
    candidate = torch.tensor([True, True, True, True, False])
    # .01 → .01, .04 → .025, .09 → .0467, .25 → .0975: within .05 are three; what is no candidate is never masked
    assert largest_left_out(square, candidate, 0.05).tolist() == [False, False, True, False, False]
    assert largest_left_out(square, candidate, 0.03).tolist() == [False, True, True, False, False]
    assert not largest_left_out(square, candidate, 1.0).any()
    assert largest_left_out(square, candidate, 0.001).tolist() == candidate.tolist()


def test_equal_squares_leave_together_and_nothing_is_no_problem() -> None:
    square = torch.tensor([[0.0, 0.2], [0.2, 0.2]])
    every = torch.ones(2, 2, dtype=torch.bool)
    # with one or two of the three equal ones the mean would be within .14, with all it is not
    assert largest_left_out(square, every, 0.14).tolist() == [[False, True], [True, True]]
    assert not largest_left_out(square, ~every, 0.14).any()
    assert largest_left_out(torch.zeros(0, 2), every[:0], 0.1).shape == (0, 2)


@given(st.lists(st.tuples(st.floats(0, 4, width=32), st.booleans()), min_size=1, max_size=12), st.floats(0.001, 2))
@settings(deadline=None, max_examples=80, derandomize=True, database=None)
def test_it_is_the_removal_one_by_one(pairs: list[tuple[float, bool]], most: float) -> None:
    square, candidate = torch.tensor([x for x, _ in pairs]), torch.tensor([c for _, c in pairs])
    left = sorted(x for x, c in pairs if c)
    while left and sum(left) / len(left) > most:
        left = [x for x in left if x < left[-1]]
    expected = [c and (not left or x > left[-1]) for x, c in pairs]
    assert largest_left_out(square, candidate, most).tolist() == expected


def test_only_steps_that_lead_further_away_are_masked() -> None:
    x = torch.tensor([[2.0], [-2.0], [2.0], [-2.0], [0.1]])
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0])
    found = policy_loss(M2PO(), x, advantage)
    assert found.weight.flatten().tolist() == [0.0, 1.0, 1.0, 0.0, 1.0]
    assert found.figures["weight/masked_share"].item() == torch.tensor(0.4)
    # −ρ·A of the three that are left
    torch.testing.assert_close(found.loss, -(x[1].exp() - x[2].exp() + x[4].exp()).squeeze() / 5)
    valid = torch.tensor([True] * 5 + [False])
    beside = policy_loss(M2PO(), torch.cat([x, x[:1]]), torch.cat([advantage, advantage[:1]]), valid)
    assert beside.figures == found.figures
