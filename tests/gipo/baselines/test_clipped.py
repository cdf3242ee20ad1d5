"""Decoupled PPO and DPPO by hand, and TIS and MIS."""

import math

import pytest
import torch
from torch import Tensor

from gipo.baselines import CISPO, DPPO, MIS, TIS, DecoupledPPO, binary_kl, probability_change
from gipo.common.errors import UserError
from gipo.objectives import Objective, PPOClip, policy_loss

GRID = torch.linspace(-4, 4, 321).unsqueeze(-1)


def figures(objective: Objective, rho: float, advantage: float, **known: Tensor) -> tuple[float, float, float]:
    """Loss, weight and contribution of one element."""
    found = policy_loss(objective, torch.tensor([[math.log(rho)]]), torch.tensor([advantage]), **known)
    return found.loss.item(), found.weight.item(), found.contribution.item()


def near(*values: float) -> object:
    return pytest.approx(values, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("age", [0, 1])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_decoupled_ppo_of_fresh_data_is_ppo(age: int, sign: float) -> None:
    advantage, ages = torch.full((321,), sign), torch.full((321,), age)
    ours = policy_loss(DecoupledPPO(), GRID, advantage, age=ages)
    theirs = policy_loss(PPOClip(), GRID, advantage)
    torch.testing.assert_close(ours.loss, theirs.loss)
    torch.testing.assert_close(ours.contribution, theirs.contribution)


def test_decoupled_ppo_by_hand() -> None:
    age = torch.tensor([4])
    # ρ = 1.5, four versions: u = 1.5^¼ = 1.107 and π_prox/μ = 1.5^¾; not clipped, −ρ·A
    assert figures(DecoupledPPO(), 1.5, 1.0, age=age) == near(-1.5, 1.0, 1.5)
    # ρ = 3: u = 1.316 is beyond 1.2: −3^¾·1.2·A, and no gradient
    assert figures(DecoupledPPO(), 3.0, 1.0, age=age) == near(-(3**0.75) * 1.2, 0.0, 0.0)
    assert figures(DecoupledPPO(), 3.0, -1.0, age=age) == near(3.0, 1.0, 3.0)
    # ρ = 12: π_prox/μ = 6.4 is above the cap
    assert figures(DecoupledPPO(), 12.0, -1.0, age=age) == near(0.0, 0.0, 0.0)
    assert figures(DecoupledPPO(behaviour_cap=None), 12.0, -1.0, age=age) == near(12.0, 1.0, 12.0)


@pytest.mark.parametrize("age", [2, 5, 30])
def test_decoupled_ppo_trusts_as_far_as_its_data_are_old(age: int) -> None:
    edge = age * math.log(1.2)
    for x, moves in ((0.99 * edge, True), (1.01 * edge, False)):
        found = policy_loss(
            DecoupledPPO(behaviour_cap=None), torch.tensor([[x]]), torch.ones(1), age=torch.tensor([age])
        )
        assert bool(found.contribution > 0) == moves


def test_divergences_by_hand() -> None:
    pi, mu = torch.tensor([0.3, 0.01, 1.0, 0.5]), torch.tensor([0.1, 0.001, 0.5, 0.5])
    assert probability_change(pi.log(), mu.log()).tolist() == near(0.2, 0.009, 0.5, 0.0)
    found = binary_kl(pi.log(), mu.log())
    by_hand = [m * math.log(m / p) + (1 - m) * math.log((1 - m) / (1 - p)) for p, m in [(0.3, 0.1), (0.01, 0.001)]]
    assert found[:2].tolist() == pytest.approx(by_hand, rel=1e-3)
    assert 5 < found[2] < math.inf  # π = 1, which μ was not: large, but finite
    assert found[3] == 0


@pytest.mark.parametrize(
    ("rho", "pi", "advantage", "moves"),
    [
        (10.0, 0.01, 1.0, True),  # rare: ten times as likely, and yet hardly another policy
        (2.0, 0.8, 1.0, False),  # μ = .4: has changed by .4 already
        (2.0, 0.8, -1.0, True),  # … which is to be taken back
        (0.5, 0.3, -1.0, False),
        (0.5, 0.3, 1.0, True),
        (1.2, 0.6, 1.0, True),  # μ = .5
    ],
)
@pytest.mark.parametrize("objective", [DPPO(), DPPO(delta=0.06, change=binary_kl)])
def test_dppo_masks_by_what_the_probability_changed(
    objective: DPPO, rho: float, pi: float, advantage: float, moves: bool
) -> None:
    u = min(rho, 20.0) if moves else 0.0
    found = figures(objective, rho, advantage, log_prob=torch.tensor([[math.log(pi)]]))
    assert found == near(-rho * advantage, u / rho, u)


def test_dppo_truncates_ratios() -> None:
    found = figures(DPPO(), 50.0, 1.0, log_prob=torch.tensor([[math.log(0.05)]]))
    assert found == near(-20.0, 20 / 50, 20.0)


def test_tis_is_cispo_with_another_bound() -> None:
    ours, theirs = (policy_loss(o, GRID, torch.ones(321)) for o in (TIS(), CISPO(ratio_max=2.0)))
    torch.testing.assert_close(ours[:4], theirs[:4])
    assert figures(TIS(), 4.0, 1.0) == near(-2.0, 0.5, 2.0)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize(("rho", "kept"), [(0.49, 0), (0.51, 1), (1.99, 1), (2.01, 0)])
def test_mis_keeps_what_is_between_its_bounds(rho: float, kept: int, advantage: float) -> None:
    assert figures(MIS(), rho, advantage) == near(-kept * rho * advantage, kept, kept * rho)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (DecoupledPPO, "clip", 0.0), (DecoupledPPO, "behaviour_cap", -1.0), (DecoupledPPO, "log_ratio_bound", 0.0),
        (DPPO, "delta", 0.0), (DPPO, "ratio_max", 0.5), (TIS, "ratio_max", 0.9), (MIS, "ratio_max", 0.9),
        (MIS, "ratio_min", 0.0), (MIS, "ratio_min", 1.1),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_by_name(kind: type, field: str, value: float) -> None:
    with pytest.raises(UserError, match=field) as raised:
        kind(**{field: value})
    assert kind.__name__ in str(raised.value) or field == "log_ratio_bound"
