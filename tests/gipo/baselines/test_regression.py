"""Advantage-weighted regression by hand: weights of advantages alone, and none of who acted."""

import math

import pytest
import torch

from gipo.baselines import AWR
from gipo.common.errors import UserError
from gipo.objectives import BehaviourCloning, policy_loss


def test_weights_by_hand_whoever_acted() -> None:
    x = torch.tensor([[0.5, -2.0], [3.0, 0.0], [0.0, 1.0]], requires_grad=True)
    advantage = torch.tensor([0.0, 0.5, 4.0])
    found = policy_loss(AWR(beta=0.5, weight_max=20.0), x, advantage)
    # exp(A/β): 1, e, and e⁸, which is more than 20
    weight = torch.tensor([[1.0], [math.e], [20.0]]).expand(3, 2)
    torch.testing.assert_close(found.weight, weight)
    torch.testing.assert_close(found.loss, -(weight * x.detach()).mean())
    torch.testing.assert_close(torch.autograd.grad(found.loss, x)[0], -weight / 6)


def test_without_preferences_it_is_cloning() -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    for advantage in (torch.zeros(8), torch.full((8,), 1e6)):
        ours = policy_loss(AWR(beta=1e6 if advantage.any() else 1.0, weight_max=1.0), x, advantage)
        torch.testing.assert_close(ours.loss, policy_loss(BehaviourCloning(), x, advantage).loss)


def test_what_overflows_is_cut_before_it_does() -> None:
    found = policy_loss(AWR(beta=1e-6), torch.ones(2, 1), torch.tensor([3e5, -3e5]))
    assert found.weight.flatten().tolist() == [pytest.approx(20.0), 0.0]
    assert torch.isfinite(found.loss)


def test_options_out_of_range_are_refused() -> None:
    for options in ({"beta": 0.0}, {"weight_max": -1.0}):
        with pytest.raises(UserError, match=r"AWR\.(beta|weight_max) must lie in"):
            AWR(**options)
