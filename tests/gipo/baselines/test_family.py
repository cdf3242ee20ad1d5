"""The rest of the family: hand numbers, closed forms, the direction of every gradient; then hostile input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gipo.baselines import ASPO, CISPO, DPPO, ESPO, GMPO, GSPO, MIS, TIS, VESPO, entropy_groups, group_mean
from gipo.common.errors import UserError
from gipo.objective import Elements, masked_terms
from gipo.objectives import NoClip, Objective, PPOClip, Terms, policy_loss

PROPERTY = settings(deadline=None, max_examples=100, derandomize=True, database=None)
RATIO_ONLY: dict[str, Objective] = {
    "aspo": ASPO(),
    "aspo-wide": ASPO(clip=0.4, dual_clip=10.0),
    "cispo": CISPO(),
    "cispo-impala": CISPO(ratio_max=1.0),
    "cispo-floor": CISPO(ratio_max=2.0, ratio_min=0.5),
}


def close(value: float, rel: float = 1e-5) -> float:
    return pytest.approx(value, rel=rel, abs=1e-7)


def graded(objective: Objective, x: Tensor, advantage: Tensor, **context: Tensor) -> tuple[Terms, Tensor]:
    """Terms, and autograd's dloss/dx of each element."""
    x = x.detach().clone().requires_grad_()
    terms = objective(x, advantage, **context)
    return terms, torch.autograd.grad(terms.loss.sum(), x)[0]


def at(objective: Objective, rho: float, advantage: float) -> tuple[float, float, float, float]:
    terms, gradient = graded(objective, torch.tensor([math.log(rho)]), torch.tensor([advantage]))
    return (*(term.item() for term in terms), gradient.item())


# ρ, A, loss, weight, contribution u; the gradient is −u·A
HAND_NUMBERS = [
    (CISPO(ratio_max=2.0), 1.5, 1.0, -1.5, 1.0, 1.5),
    (CISPO(ratio_max=2.0), 4.0, 1.0, -2.0, 0.5, 2.0),
    (CISPO(ratio_max=2.0), 4.0, -3.0, 6.0, 0.5, 2.0),
    (CISPO(ratio_max=1.0), 4.0, 1.0, -1.0, 0.25, 1.0),
    (CISPO(ratio_max=2.0, ratio_min=0.5), 0.25, 1.0, -0.5, 2.0, 0.5),
    # a good action: 1/ρ, up to c = 3, and nothing beyond ρ = 1.2
    (ASPO(), 0.5, 1.0, -2.0, 4.0, 2.0),
    (ASPO(), 1.1, 1.0, -1 / 1.1, 1 / 1.21, 1 / 1.1),
    (ASPO(), 2.0, 1.0, -1 / 1.2, 0.0, 0.0),
    (ASPO(), 1.21, 1.0, -1 / 1.2, 0.0, 0.0),  # of which the logarithm is less than .2
    (ASPO(), 0.25, 2.0, -6.0, 12.0, 3.0),
    # a bad action: PPO-Clip, dual-clipped at c = 3
    (ASPO(), 0.5, -1.0, 0.8, 0.0, 0.0),
    (ASPO(), 2.0, -1.0, 2.0, 1.0, 2.0),
    (ASPO(), 4.0, -1.0, 3.0, 0.0, 0.0),
    # its own bound on each side
    (MIS(ratio_max=4.0, ratio_min=0.5), 0.3, 1.0, 0.0, 0.0, 0.0),
    (MIS(ratio_max=4.0, ratio_min=0.5), 0.6, 1.0, -0.6, 1.0, 0.6),
    (MIS(ratio_max=4.0, ratio_min=0.5), 3.0, -1.0, 3.0, 1.0, 3.0),
]


@pytest.mark.parametrize(("objective", "rho", "advantage", "loss", "weight", "contribution"), HAND_NUMBERS)
def test_hand_numbers(
    objective: Objective, rho: float, advantage: float, loss: float, weight: float, contribution: float
) -> None:
    expected = (loss, weight, contribution, -contribution * advantage)
    assert at(objective, rho, advantage) == tuple(close(value) for value in expected)


@pytest.mark.parametrize("objective", RATIO_ONLY.values(), ids=RATIO_ONLY)
def test_gradient_is_minus_contribution_times_advantage(objective: Objective) -> None:
    x = torch.linspace(-50, 50, 2001).unsqueeze(-1)
    for a in (-3.0, -0.5, 0.0, 0.5, 3.0):
        terms, gradient = graded(objective, x, torch.tensor(a))
        torch.testing.assert_close(gradient, -terms.contribution * a)
        # far below, where u/ρ overflows, the weight is reported as at x = −5; u is not
        inside = x >= -5
        ratio = torch.where(inside, terms.weight.double() * x.double().exp(), 0.0).clamp(max=math.exp(5))
        torch.testing.assert_close(torch.where(inside, terms.contribution, 0.0), ratio.float(), atol=1e-30, rtol=1e-5)
        assert (terms.weight[~inside] - terms.weight[inside][0]).abs().max() <= 1e-5 * terms.weight[inside][0]
        assert (terms.contribution >= 0).all()
        assert not terms.weight.requires_grad
        assert not terms.contribution.requires_grad


KEEPING = [CISPO(), TIS(), DPPO(), GSPO(0.9, 0.9), GMPO(), VESPO(), NoClip(), PPOClip()]


@pytest.mark.parametrize("objective", KEEPING, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("x", [-12.0, -8.0, -5.0, -1.0, 0.5])
def test_the_weight_of_one_dimension_is_what_is_left_of_its_ratio(objective: Objective, x: float) -> None:
    """However unlikely an action has become: a sample that moves the policy fully is none that is held back."""
    log_ratio = torch.tensor([[x]])
    seen = Elements(log_ratio, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), log_prob=log_ratio - 3.5)
    terms, _ = masked_terms(objective, seen)
    assert terms.weight.item() == pytest.approx(terms.contribution.item() / math.exp(x), rel=1e-4)


@pytest.mark.parametrize("objective", RATIO_ONLY.values(), ids=RATIO_ONLY)
@pytest.mark.parametrize("advantage", [-2.0, 0.7])
def test_on_policy_gradient_is_minus_advantage(objective: Objective, advantage: float) -> None:
    assert at(objective, 1.0, advantage)[3] == close(-advantage)


@pytest.mark.parametrize("rho", [0.02, 0.3, 0.9, 1.0, 1.19])
def test_aspo_pulls_good_actions_up_where_a_plain_inverse_ratio_pushes_them_down(rho: float) -> None:
    x = torch.tensor(math.log(rho), requires_grad=True)
    (wrong,) = torch.autograd.grad(-1 / x.exp(), x)
    assert wrong > 0  # descent lowers x
    assert at(ASPO(), rho, 1.0)[3] == close(-min(1 / rho, 3.0))


def test_aspo_is_dual_clipped_ppo_for_bad_actions() -> None:
    x, advantage = torch.linspace(-4, 4, 401), torch.tensor(-1.3)
    for ours, theirs in zip(
        graded(ASPO(), x, advantage)[0], graded(PPOClip(dual_clip=3.0), x, advantage)[0], strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_contributions_far_out_are_those_of_the_formulas() -> None:
    # CISPO: clip(ρ, l, c); ASPO of a good action: min(1/ρ, c); ESPO alone in its group: ρ², and c of none
    for x, ratio in ((-12.0, math.exp(-12)), (12.0, 5.0)):
        assert at(CISPO(), math.exp(x), 1.0)[2] == pytest.approx(ratio, rel=1e-4)
    assert at(ASPO(dual_clip=1e3, log_ratio_bound=2.0), math.exp(-6.0), 1.0)[2] == close(math.exp(6), rel=1e-4)
    x = torch.tensor([[-9.0, 2.0, 4.0]])
    terms, gradient = graded(ESPO(groups=3), x, torch.tensor([[1.0]]), entropy=torch.tensor([[0.1, 0.2, 0.3]]))
    assert terms.contribution[0].tolist() == [pytest.approx(math.exp(-18), rel=1e-4), 0.0, 0.0]
    terms, gradient = graded(ESPO(groups=3), x, torch.tensor([[-1.0]]), entropy=torch.tensor([[0.1, 0.2, 0.3]]))
    # a bad action: dead below; ρ² above, at most e⁵
    assert terms.contribution[0].tolist() == [0.0, close(math.exp(4)), close(math.exp(5))]
    assert gradient[0].tolist() == [0.0, close(math.exp(4)), close(math.exp(5))]


def test_cispo_without_truncation_is_no_clip() -> None:
    x = torch.linspace(-5, 5, 201)
    for advantage in torch.tensor([-1.0, 2.0]):
        wide, plain = graded(CISPO(ratio_max=1e6), x, advantage), graded(NoClip(), x, advantage)
        torch.testing.assert_close(wide, plain, atol=0, rtol=1e-6)


# ESPO. Dimensions 0 and 2 have low entropy, 1 and 3 high.
ENTROPY = torch.tensor([[0.2, 0.9, 0.3, 0.8]])
X = torch.tensor([[0.02, -0.3, 0.04, 0.1]])


def test_the_clip_of_espo_is_of_the_ratio_and_not_of_its_logarithm() -> None:
    # r = ρ² and ε = ½: log 1.5 < .45 < ½ is cut where A > 0, and log ½ < −.6 < −½ is not where A < 0
    for x, advantage, loss, weight in ((0.225, 1.0, -1.5, 0.0), (-0.3, -1.0, math.exp(-0.6), math.exp(-0.3))):
        terms, _ = graded(
            ESPO(alpha=0.5, groups=1), torch.tensor([[x]]), torch.tensor([[advantage]]), entropy=torch.ones(1, 1)
        )
        assert (terms.loss.item(), terms.weight.item()) == (close(loss), close(weight))


def test_entropy_groups_by_hand() -> None:
    every = torch.ones(1, 4, dtype=torch.bool)
    assert entropy_groups(ENTROPY, 1, every).tolist() == [[0, 0, 0, 0]]
    assert entropy_groups(ENTROPY, 2, every).tolist() == [[0, 1, 0, 1]]
    assert entropy_groups(ENTROPY, 4, every).tolist() == [[0, 3, 1, 2]]
    assert entropy_groups(ENTROPY, 3, every).tolist() == [[0, 2, 0, 1]]
    # equal entropies go by position; what is not used takes no place
    assert entropy_groups(torch.ones(1, 4), 2, every).tolist() == [[0, 0, 1, 1]]
    used = torch.tensor([[False, True, True, True]])
    assert entropy_groups(ENTROPY, 3, used)[used].tolist() == [2, 0, 1]


def test_group_mean_by_hand() -> None:
    group = torch.tensor([[0, 1, 0, 1]])
    values, used = torch.tensor([[1.0, 2.0, 5.0, math.nan]]), torch.tensor([[True, True, True, False]])
    assert group_mean(values, group, 2, used).tolist() == [[3.0, 2.0, 3.0, 2.0]]
    assert group_mean(values, group, 2, torch.zeros_like(used)).tolist() == [[0.0] * 4]


def test_espo_by_hand() -> None:
    # mean of x: .03 and −.1; r = exp(mean + x); ε = α·(.25, .85)
    alpha = 0.4
    terms, gradient = graded(ESPO(alpha=alpha), X, torch.tensor([[1.0]]), entropy=ENTROPY)
    s = [math.exp(mean) for mean in (0.03, -0.1, 0.03, -0.1)]
    r = [s_i * math.exp(x) for s_i, x in zip(s, X[0].tolist(), strict=True)]
    clip = [alpha * h for h in (0.25, 0.85, 0.25, 0.85)]
    assert [r_i < 1 + c for r_i, c in zip(r, clip, strict=True)] == [True] * 4
    assert terms.contribution[0].tolist() == [close(value) for value in r]
    assert terms.weight[0].tolist() == [close(value) for value in s]
    assert gradient[0].tolist() == [close(-value) for value in r]
    # a tenth of α: the low-entropy group and no other lies above its clip; r of 0 and 2 is 1.051, 1.073 > 1.01
    terms, gradient = graded(ESPO(alpha=0.04), X, torch.tensor([[1.0]]), entropy=ENTROPY)
    assert gradient[0].tolist() == [0.0, close(-r[1]), 0.0, close(-r[3])]
    assert terms.loss[0].tolist() == [close(-1.01), close(-r[1]), close(-1.01), close(-r[3])]
    # bad actions are cut below the clip: r of 1 is .670 < .966, r of 3 is 1.0
    _, gradient = graded(ESPO(alpha=0.04), X, torch.tensor([[-1.0]]), entropy=ENTROPY)
    assert gradient[0].tolist() == [close(r[0]), 0.0, close(r[2]), close(r[3])]


def test_espo_clips_more_tightly_where_the_behaviour_was_sure() -> None:
    x = torch.full((1, 2), 0.005)
    _, gradient = graded(ESPO(), x, torch.ones(1, 1), entropy=torch.tensor([[0.1, 1.0]]))
    assert (gradient != 0).tolist() == [[False, True]]  # r = 1.01 in both; ε = .002 and .02


def test_espo_gradient_is_minus_contribution_times_advantage() -> None:
    generator = torch.Generator().manual_seed(1)
    x = 0.1 * torch.randn(200, 5, generator=generator)
    entropy, advantage = torch.rand(200, 5, generator=generator), torch.randn(200, 1, generator=generator)
    for groups in (1, 2, 5, 9):
        terms, gradient = graded(ESPO(alpha=0.2, groups=groups), x, advantage, entropy=entropy)
        torch.testing.assert_close(gradient, -terms.contribution * advantage)
        torch.testing.assert_close(terms.contribution, terms.weight * x.exp())
        assert 0.05 < (terms.contribution == 0).float().mean() < 0.95


def test_espo_on_policy_gradient_is_minus_advantage_even_where_the_behaviour_was_deterministic() -> None:
    for advantage in (-2.0, 0.7):
        _, gradient = graded(ESPO(), torch.zeros(3, 4), torch.full((3, 1), advantage), entropy=torch.zeros(3, 4))
        torch.testing.assert_close(gradient, torch.full((3, 4), -advantage))


def test_espo_leaves_unusable_dimensions_out_of_their_group() -> None:
    x, entropy = X.clone(), ENTROPY.clone()
    x[0, 2], entropy[0, 2] = math.nan, math.nan
    result = policy_loss(ESPO(alpha=10.0, groups=1), x, torch.ones(1), entropy=entropy)
    kept = X[0, [0, 1, 3]]
    assert result.used.tolist() == [[True, True, False, True]]
    assert result.loss.item() == close(-(kept.mean().exp() * kept.exp()).mean().item())
    # nor is its entropy of .9 in the clip: r = e^.1 lies above 1 + ½·.1, and below 1 + ½·(.1 + .9)/2
    x, entropy = torch.tensor([[0.05, math.nan]]), torch.tensor([[0.1, 0.9]])
    assert policy_loss(ESPO(alpha=0.5, groups=1), x, torch.ones(1), entropy=entropy).loss.item() == close(-1.05)


def test_espo_without_entropy_says_what_is_missing() -> None:
    for call in (lambda: ESPO()(X, torch.ones(1, 1)), lambda: policy_loss(ESPO(), X, torch.ones(1))):
        with pytest.raises(UserError, match=r"data\.store_params=true"):
            call()


BAD_PARAMETERS = [
    (CISPO, "ratio_max", 0.9), (CISPO, "ratio_max", math.inf), (CISPO, "ratio_max", math.nan),
    (CISPO, "ratio_min", -0.1), (CISPO, "ratio_min", 1.1), (CISPO, "ratio_min", math.nan),
    (ASPO, "clip", 0.0), (ASPO, "clip", math.nan), (ASPO, "dual_clip", 1.1), (ASPO, "dual_clip", math.inf),
    (ESPO, "alpha", 0.0), (ESPO, "alpha", -1.0), (ESPO, "alpha", math.nan), (ESPO, "groups", 0),
    *((kind, "log_ratio_bound", value) for kind in (ASPO, CISPO, ESPO) for value in (0.0, 41.0, math.nan)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "field", "value"), BAD_PARAMETERS)
def test_bad_parameters_are_refused_by_name(kind: type, field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        kind(**{field: value})


LOG_RATIOS = st.floats(-1e4, 1e4, width=32) | st.sampled_from([math.inf, -math.inf, math.nan, 88.8, -88.8, 0.0])
ADVANTAGES = st.floats(-100, 100, width=32) | st.sampled_from([math.inf, math.nan, 0.0])
ROWS = st.lists(st.tuples(st.lists(LOG_RATIOS, min_size=3, max_size=3), ADVANTAGES), min_size=1, max_size=8)


@given(
    objective=st.sampled_from([*RATIO_ONLY.values(), ESPO(), ESPO(alpha=3.0, groups=3), CISPO(log_ratio_bound=40.0)]),
    rows=ROWS,
)
@PROPERTY
def test_hostile_log_ratios_are_masked_and_leave_finite_gradients(
    objective: Objective, rows: list[tuple[list[float], float]]
) -> None:
    log_ratio = torch.tensor([row for row, _ in rows]).requires_grad_()
    advantage = torch.tensor([a for _, a in rows])
    result = policy_loss(objective, log_ratio, advantage, entropy=torch.linspace(0, 1, 3).expand(len(rows), 3))
    (gradient,) = torch.autograd.grad(result.loss, log_ratio)
    usable = [math.isfinite(a) and math.isfinite(x) for row, a in rows for x in row]
    assert result.used.flatten().tolist() == usable
    assert torch.isfinite(result.loss)
    assert torch.isfinite(gradient).all()
    assert not gradient[~result.used].any()
    pull = -result.contribution * torch.where(advantage.isfinite(), advantage, 0.0).unsqueeze(-1) / max(sum(usable), 1)
    torch.testing.assert_close(gradient[result.used], pull[result.used], atol=1e-6, rtol=1e-4)
