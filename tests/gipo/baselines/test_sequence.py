"""Objectives over a sequence: hand numbers of one step, chunks, and dimensions that are left out."""

import math

import pytest
import torch
from torch import Tensor

from gipo.baselines import GMPO, GSPO, VESPO, over_sequence
from gipo.common.errors import UserError
from gipo.objectives import Elements, Objective, PPOClip, policy_loss

X = torch.tensor([[0.3, -0.1, 0.5, 0.1]])
GOOD, BAD = torch.ones(1), -torch.ones(1)


def contribution(objective: Objective, x: Tensor, advantage: Tensor, **known: int) -> list[float]:
    return policy_loss(objective, x, advantage, **known).contribution.flatten().tolist()


def test_vespo_by_hand() -> None:
    # W = e^.8: φ = e³·W²·e^(−3W) of a good action, e²·W³·e^(−2W) of a bad one
    w = math.exp(0.8)
    good, bad = math.exp(3) * w**2 * math.exp(-3 * w), math.exp(2) * w**3 * math.exp(-2 * w)
    assert contribution(VESPO(), X, GOOD) == [pytest.approx(good, rel=1e-5)] * 4
    assert contribution(VESPO(), X, BAD) == [pytest.approx(bad, rel=1e-5)] * 4
    found = policy_loss(VESPO(), X, GOOD)
    assert found.loss.item() == pytest.approx(-good, rel=1e-5)
    assert found.weight[0].tolist() == pytest.approx([good / math.exp(x) for x in X[0].tolist()], rel=1e-5)


@pytest.mark.parametrize(("k", "rate"), [(2.0, 3.0), (3.0, 2.0), (1.0, 1.0)])
def test_the_largest_phi_is_where_the_ratio_of_the_sequence_is_k_over_lambda(k: float, rate: float) -> None:
    objective = VESPO(k_pos=k, lambda_pos=rate)
    peak = math.exp(rate - k) * (k / rate) ** k
    at = math.log(k / rate) / 4
    assert contribution(objective, torch.full((1, 4), at), GOOD)[0] == pytest.approx(peak, rel=1e-5)
    for away in (at - 0.05, at + 0.05):
        assert contribution(objective, torch.full((1, 4), away), GOOD)[0] < peak


def test_gspo_by_hand() -> None:
    # mean x = .2: s = 1.2214, clipped above 1.1 where A > 0, not where A < 0
    objective, s = GSPO(clip_low=0.1, clip_high=0.1), math.exp(0.2)
    assert contribution(objective, X, GOOD) == [0.0] * 4
    assert policy_loss(objective, X, GOOD).loss.item() == pytest.approx(-1.1)
    assert contribution(objective, X, BAD) == [pytest.approx(s)] * 4
    assert policy_loss(objective, X, BAD).loss.item() == pytest.approx(s)
    assert contribution(objective, -X, BAD) == [0.0] * 4
    assert policy_loss(objective, -X, BAD).loss.item() == pytest.approx(0.9)


def test_gspo_has_a_clip_of_its_own_on_each_side_and_a_bound() -> None:
    objective = GSPO(clip_low=0.1, clip_high=0.3)
    assert contribution(objective, torch.tensor([[math.log(0.8)]]), BAD) == [0.0]
    assert contribution(objective, torch.tensor([[math.log(1.2)]]), GOOD) == [pytest.approx(1.2)]
    bounded = policy_loss(GSPO(log_ratio_bound=1.0), torch.tensor([[2.0]]), BAD)
    assert (bounded.loss.item(), bounded.contribution.item()) == (pytest.approx(math.e), pytest.approx(math.e))


def test_weights_of_a_sequence_are_reported_up_to_twice_the_bound() -> None:
    for x, weight in ((8.0, 8.0), (12.0, 10.0)):  # s = 1, so that w = 1/ρ
        found = policy_loss(GSPO(), torch.tensor([[-x, x]]), GOOD)
        assert found.weight[0].log().tolist() == pytest.approx([weight, -x])


def test_gspo_of_one_dimension_is_ppo() -> None:
    x = torch.linspace(-3, 3, 121).unsqueeze(-1)
    for sign in (GOOD, BAD):
        ours, theirs = (policy_loss(o, x, sign.expand(121)) for o in (GSPO(0.2, 0.2), PPOClip(0.2)))
        torch.testing.assert_close(ours.loss, theirs.loss)
        torch.testing.assert_close(ours.contribution, theirs.contribution)


def test_gspo_moves_a_sequence_by_the_gradient_of_its_ratio() -> None:
    x = X.clone().requires_grad_()
    (ours,) = torch.autograd.grad(policy_loss(GSPO(), x, BAD).loss, x)
    (plain,) = torch.autograd.grad(x.mean().exp(), x)
    torch.testing.assert_close(ours, plain)


def test_gmpo_by_hand() -> None:
    # good: .5 is clipped to .4, and has no gradient; bad: −.1 is not clipped, −.6 is
    good = math.exp((0.3 - 0.1 + 0.4 + 0.1) / 4)
    assert contribution(GMPO(), X, GOOD) == [pytest.approx(good)] * 2 + [0.0, pytest.approx(good)]
    assert policy_loss(GMPO(), X, GOOD).loss.item() == pytest.approx(-good)
    bad = math.exp((0.3 - 0.4 + 0.5 + 0.1) / 4)
    assert contribution(GMPO(), torch.tensor([[0.3, -0.6, 0.5, 0.1]]), BAD) == [
        pytest.approx(bad), 0.0, pytest.approx(bad), pytest.approx(bad),
    ]  # fmt: skip


def test_gmpo_within_its_clip_moves_by_the_gradient_of_the_geometric_mean() -> None:
    x = (0.5 * X).requires_grad_()
    (ours,) = torch.autograd.grad(policy_loss(GMPO(), x, GOOD).loss, x)
    (plain,) = torch.autograd.grad(-x.mean().exp(), x)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize(("k", "rate"), [(1.0, 100.0), (1e6, 1e-3)])
def test_vespo_refuses_weights_that_float32_cannot_square(k: float, rate: float) -> None:
    with pytest.raises(UserError, match=r"VESPO\.k_neg=.* and lambda_neg=.* weigh a sample by up to exp\(\d+\)"):
        VESPO(k_neg=k, lambda_neg=rate)
    # λ − k + k·log(k/λ) = 43 − 1 − log 43 = 38.2
    loss = policy_loss(VESPO(k_pos=1.0, lambda_pos=43.0), torch.full((1, 1), -math.log(43.0)), GOOD[:1]).loss
    assert loss.isfinite()


@pytest.mark.parametrize("kind", [VESPO, GSPO, GMPO])
def test_the_steps_of_a_chunk_are_one_sequence(kind: type) -> None:
    x = torch.cat([X, -0.5 * X, 0.1 * X, 0.2 * X])
    advantage = -torch.ones(4)
    chunks = policy_loss(kind(chunk=True), x, advantage, steps=2)
    wide = policy_loss(kind(), x.reshape(2, 8), advantage[:2])
    torch.testing.assert_close(chunks.contribution.reshape(2, 8), wide.contribution)
    torch.testing.assert_close(chunks.loss, wide.loss)
    # without chunks, and without asking for them, each step is its own
    for other in (policy_loss(kind(chunk=True), x, advantage), policy_loss(kind(), x, advantage, steps=2)):
        torch.testing.assert_close(other.contribution, policy_loss(kind(), x, advantage).contribution)


def test_sums_and_counts_are_of_used_elements() -> None:
    values = torch.arange(8.0).reshape(2, 4)
    used = torch.tensor([[True, True, False, True], [True, False, False, False]])
    seen = Elements(values, values, used, steps=2)
    total, count = over_sequence(values, seen, chunk=False)
    assert total[:, 0].tolist() == [4.0, 4.0]
    assert count[:, 3].tolist() == [3.0, 1.0]
    total, count = over_sequence(values, seen, chunk=True)
    assert total.unique().tolist() == [8.0]
    assert count.unique().tolist() == [4.0]


def test_an_unusable_dimension_leaves_its_sequence() -> None:
    x = X.clone()
    x[0, 2] = math.nan
    kept = torch.tensor([[0.3, -0.1, 0.1]])
    for objective in (VESPO(), GSPO(), GMPO()):
        torch.testing.assert_close(policy_loss(objective, x, BAD).loss, policy_loss(objective, kept, BAD).loss)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (VESPO, "k_pos", 0.0), (VESPO, "lambda_neg", -1.0), (VESPO, "log_ratio_bound", 50.0),
        (GSPO, "clip_low", 1.0), (GSPO, "clip_high", math.nan), (GMPO, "clip", 0.0),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_by_name(kind: type, field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        kind(**{field: value})
