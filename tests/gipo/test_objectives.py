"""Objectives against hand numbers, closed forms, bounds and limits; then against hostile input."""

import math
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gipo.common.errors import UserError
from gipo.objective import Elements, Figures, Terms, reads_behaviour
from gipo.objectives import (
    GIPO,
    SAPO,
    BehaviourCloning,
    NoClip,
    Objective,
    PPOClip,
    attach_gradient,
    cauchy,
    importance_ratio,
    k1,
    k2,
    k3,
    laplacian,
    masked_mean,
    policy_loss,
    ppo_dead,
)

torch.set_num_threads(1)

PROPERTY = settings(deadline=None, max_examples=150, derandomize=True, database=None)

OBJECTIVES: dict[str, Objective] = {
    "noclip": NoClip(),
    "gipo": GIPO(),
    "gipo-narrow": GIPO(sigma=0.2),
    "gipo-asymmetric": GIPO(sigma=1.0, sigma_neg_ratio=0.5),
    "gipo-laplacian": GIPO(kernel=laplacian),
    "gipo-cauchy": GIPO(kernel=cauchy),
    "ppo": PPOClip(),
    "ppo-dual": PPOClip(dual_clip=3.0),
    "ppo-wide": PPOClip(clip=1.5),
    "ppo-tight-bound": PPOClip(log_ratio_bound=0.1),
    "sapo": SAPO(),
    "sapo-authors": SAPO(tau_neg=2.0),
    "widest-bound": GIPO(sigma=3.0, log_ratio_bound=40.0),
}

every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


class Element(NamedTuple):
    """What an objective says of one element, and what autograd makes of its loss."""

    loss: float
    weight: float
    contribution: float
    gradient: float


def at(objective: Objective, x: float, advantage: float = 1.0) -> Element:
    log_ratio = torch.tensor(x, requires_grad=True)
    terms = objective(log_ratio, torch.tensor(advantage))
    (gradient,) = torch.autograd.grad(terms.loss, log_ratio)
    return Element(terms.loss.item(), terms.weight.item(), terms.contribution.item(), gradient.item())


def close(expected: float, rel: float = 1e-5) -> object:
    return pytest.approx(expected, rel=rel, abs=1e-7)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


# Loss at ρ = 2 and ρ = ½ for A = 1 and A = −1, worked out by hand.
HAND_NUMBERS = [
    # −ρA
    (NoClip(), 2.0, 1.0, -2.0),
    (NoClip(), 0.5, -1.0, 0.5),
    # −exp(−½·0.693147²)·ρA: w = exp(−0.240227) = 0.786450
    (GIPO(), 2.0, 1.0, -1.572900),
    (GIPO(), 0.5, -1.0, 0.393225),
    # σ = ½: w = exp(−0.960906) = 0.382546
    (GIPO(sigma=0.5), 2.0, 1.0, -0.765093),
    # σ₊ = 1, σ₋ = ½
    (GIPO(sigma_neg_ratio=0.5), 2.0, 1.0, -1.572900),
    (GIPO(sigma_neg_ratio=0.5), 2.0, -1.0, 0.765093),
    # w = exp(−0.693147) = ½
    (GIPO(kernel=laplacian), 2.0, 1.0, -1.0),
    (GIPO(kernel=laplacian), 0.5, 1.0, -0.25),
    # w = 1/(1 + 0.480453) = 0.675469
    (GIPO(kernel=cauchy), 2.0, 1.0, -1.350938),
    (GIPO(kernel=cauchy), 0.5, -1.0, 0.337735),
    # clipped at 1.2 and .8 where that is the smaller surrogate
    (PPOClip(), 2.0, 1.0, -1.2),
    (PPOClip(), 2.0, -1.0, 2.0),
    (PPOClip(), 0.5, 1.0, -0.5),
    (PPOClip(), 0.5, -1.0, 0.8),
    # … of which the bounds are those of ρ, not of x: log 1.21 is less than .2, and log .81 less than −.2
    (PPOClip(), 1.21, 1.0, -1.2),
    (PPOClip(), 1.19, 1.0, -1.19),
    (PPOClip(), 0.79, -1.0, 0.8),
    (PPOClip(), 0.81, -1.0, 0.81),
    # beyond c = 3 the loss of a bad action stops at −cA; a good action is not touched
    (PPOClip(dual_clip=3.0), 2.0, -1.0, 2.0),
    (PPOClip(dual_clip=3.0), 4.0, -1.0, 3.0),
    (PPOClip(dual_clip=3.0), 4.0, 1.0, -1.2),
    # (4/τ)·sigmoid(τ(ρ−1)): sigmoid(1) = 0.731059, sigmoid(−.525) = 0.371683, sigmoid(2) = 0.880797
    (SAPO(), 2.0, 1.0, -2.924234),
    (SAPO(), 0.5, -1.0, 1.415936),
    (SAPO(tau_neg=2.0), 2.0, -1.0, 1.761594),
]


@pytest.mark.parametrize(("objective", "rho", "advantage", "loss"), HAND_NUMBERS)
def test_hand_numbers(objective: Objective, rho: float, advantage: float, loss: float) -> None:
    assert at(objective, math.log(rho), advantage).loss == close(loss, rel=2e-6)


CLOSED_FORM_WEIGHTS = {
    "noclip": lambda x, a: 1.0,
    "gipo": lambda x, a: math.exp(-0.5 * x**2),
    "gipo-narrow": lambda x, a: math.exp(-0.5 * (x / 0.2) ** 2),
    "gipo-asymmetric": lambda x, a: math.exp(-0.5 * (x / (1.0 if a > 0 else 0.5)) ** 2),
    "gipo-laplacian": lambda x, a: math.exp(-abs(x)),
    "gipo-cauchy": lambda x, a: 1 / (1 + x**2),
    "ppo": lambda x, a: float(not (a > 0 and math.exp(x) > 1.2) and not (a < 0 and math.exp(x) < 0.8)),
    "sapo": lambda x, a: 4 * sigmoid(z := (1.0 if a > 0 else 1.05) * (math.exp(x) - 1)) * sigmoid(-z),
}


@pytest.mark.parametrize("name", CLOSED_FORM_WEIGHTS)
@pytest.mark.parametrize("advantage", [-1.7, 0.6])
@pytest.mark.parametrize("x", [-12.0, -4.9, -1.0, -0.3, -0.1, 0.0, 0.1, 0.3, 1.0, 2.0, 4.9, 9.0])
def test_weight_follows_its_closed_form(name: str, x: float, advantage: float) -> None:
    element, weight = at(OBJECTIVES[name], x, advantage), CLOSED_FORM_WEIGHTS[name](x, advantage)
    assert element.weight == close(weight, rel=1e-4)
    assert element.contribution == close(min(weight * math.exp(x), math.exp(5)), rel=1e-4)


@every_objective
@pytest.mark.parametrize("advantage", [-2.0, 0.0, 0.7])
def test_on_policy_gradient_is_minus_advantage(objective: Objective, advantage: float) -> None:
    element = at(objective, 0.0, advantage)
    assert element.gradient == close(-advantage)
    assert element.weight == close(1.0)


@every_objective
def test_gradient_is_minus_contribution_times_advantage(objective: Objective) -> None:
    x = torch.linspace(-50, 50, 4001, dtype=torch.float64).unsqueeze(-1).requires_grad_()
    advantage = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], dtype=torch.float64)
    for a in advantage:
        terms = objective(x, a)
        (gradient,) = torch.autograd.grad(terms.loss.sum(), x)
        torch.testing.assert_close(gradient, -terms.contribution * a)
        # w·ρ at x itself, however far out; only where it is more than exp(bound) it is that
        expected = (terms.weight * x.detach().exp()).clamp(max=math.exp(objective.log_ratio_bound))
        torch.testing.assert_close(terms.contribution, expected, atol=1e-300, rtol=1e-9)


@every_objective
def test_weights_and_contributions_carry_no_gradient(objective: Objective) -> None:
    terms = objective(torch.zeros(3, requires_grad=True), torch.ones(3))
    assert terms.loss.requires_grad
    assert not terms.weight.requires_grad
    assert not terms.contribution.requires_grad


@pytest.mark.parametrize(("sigma", "bound"), [(0.5, 1.133148), (1.0, 1.648721), (2.0, 7.389056), (3.0, 90.017131)])
def test_gaussian_contribution_peaks_at_its_bound(sigma: float, bound: float) -> None:
    # max_x w·ρ = exp(σ²/2), reached at ρ = exp(σ²)
    x = torch.linspace(-12, 12, 240_001)
    contribution = GIPO(sigma=sigma)(x, torch.tensor(1.0)).contribution
    assert contribution.max().item() == close(bound)
    assert bound == close(math.exp(sigma**2 / 2))
    assert x[contribution.argmax()].item() == pytest.approx(sigma**2, abs=1e-2)
    assert at(GIPO(sigma=sigma), sigma**2).contribution == close(bound)


def test_gaussian_contribution_falls_off_on_both_sides_without_end() -> None:
    # e^{x − x²/2σ²}: 10 − 100/8 = −2.5; 15 − 225/8 = −13.125; −10 − 100/8 = −22.5
    for x, exponent in ((10.0, -2.5), (15.0, -13.125), (-10.0, -22.5)):
        element = at(GIPO(sigma=2.0), x)
        assert element.contribution == pytest.approx(math.exp(exponent), rel=1e-5)
        assert element.weight == pytest.approx(math.exp(-(x**2) / 8), rel=1e-5)
        assert element.gradient == pytest.approx(-math.exp(exponent), rel=1e-5)
    x = torch.linspace(-30, 30, 6001)
    slope = GIPO(sigma=2.0)(x, torch.tensor(1.0)).contribution.diff()
    assert (slope[x[1:] <= 4.0] >= 0).all()
    assert (slope[x[:-1] >= 4.0] <= 0).all()
    assert GIPO(sigma=2.0)(x, torch.tensor(1.0)).contribution[-1] < 1e-30


def test_sapo_contribution_falls_off_whatever_the_bound() -> None:
    # ρ = e²: 4p(1−p)·ρ with p = sigmoid(6.389); at ρ = e⁸ nothing is left
    p = sigmoid(math.exp(2) - 1)
    for bound in (1.0, 5.0):
        assert at(SAPO(log_ratio_bound=bound), 2.0).contribution == close(4 * p * (1 - p) * math.exp(2), rel=1e-4)
        assert at(SAPO(log_ratio_bound=bound), 8.0).contribution == 0
        assert at(SAPO(log_ratio_bound=bound), -8.0).contribution == close(0.786448 * math.exp(-8), rel=1e-3)
    # 1 − sigmoid(20) is e⁻²⁰, which is 0 as a difference in float32
    assert at(SAPO(), math.log(21)).weight == pytest.approx(4 * math.exp(-20), rel=1e-4)


@pytest.mark.parametrize(("tau", "peak"), [(1.0, 1.575), (2.0, 1.198)])
def test_sapo_contribution_peaks_where_the_paper_says(tau: float, peak: float) -> None:
    x = torch.linspace(-5, 5, 100_001)
    for sign in (1.0, -1.0):
        contribution = SAPO(tau_pos=tau, tau_neg=tau)(x, torch.tensor(sign)).contribution
        assert contribution.max().item() == pytest.approx(peak, abs=5e-4)


@pytest.mark.parametrize(
    ("objective", "at_the_bound"),
    [
        (GIPO(sigma=2.0, kernel=laplacian), math.exp(5 - 5 / 2)),
        (GIPO(kernel=cauchy), math.exp(5) / 26),
        (NoClip(), math.exp(5)),
    ],
    ids=["laplacian", "cauchy", "noclip"],
)
def test_only_the_bound_on_the_exponent_ends_the_other_kernels(objective: Objective, at_the_bound: float) -> None:
    # below it they are what they are, at x = 5 too; with it nothing is more than e⁵
    assert at(objective, 5.0).contribution == close(at_the_bound)
    x = torch.linspace(-20, 20, 4001)
    contribution = objective(x, torch.tensor(1.0)).contribution
    assert contribution.max().item() == close(math.exp(5))
    assert at(objective, 20.0).contribution == close(math.exp(5))


LIMITS = {
    "gaussian-wide-sigma": GIPO(sigma=1e6),
    "laplacian-wide-sigma": GIPO(sigma=1e6, kernel=laplacian),
    "cauchy-wide-sigma": GIPO(sigma=1e6, kernel=cauchy),
    "ppo-wide-clip": PPOClip(clip=1e6),
}


@pytest.mark.parametrize("objective", LIMITS.values(), ids=LIMITS)
def test_wide_limit_is_no_clip(objective: Objective) -> None:
    x = torch.linspace(-8, 8, 201)
    for advantage in torch.tensor([-1.0, 2.0]):
        torch.testing.assert_close(objective(x, advantage), NoClip()(x, advantage), atol=0, rtol=2e-5)


def test_sapo_gradient_tends_to_no_clip_as_tau_tends_to_zero() -> None:
    for x in (-2.0, 0.5, 3.0):
        assert at(SAPO(tau_pos=1e-4, tau_neg=1e-4), x).gradient == close(-math.exp(x), rel=1e-4)


@pytest.mark.parametrize(("x", "inside"), [(7.0, 5.0), (-7.0, -7.0), (1e4, 5.0), (-1e4, -1e4)])
def test_only_large_ratios_are_cut_and_their_gradient_is_kept(x: float, inside: float) -> None:
    element = at(NoClip(), x)
    assert element.loss == close(-math.exp(inside))
    assert element.gradient == close(-math.exp(inside))
    assert element.weight == 1
    # the weight is of x itself: exp(−½·49), and 0 in float32 at 10⁴
    assert at(GIPO(), x).weight == pytest.approx(math.exp(-0.5 * x**2) if abs(x) < 10 else 0.0, rel=1e-4)
    assert at(GIPO(), x).gradient == pytest.approx(-math.exp(x - 0.5 * x**2) if abs(x) < 10 else 0.0, rel=1e-4)


def test_no_mask_of_ppo_follows_the_bound_on_ratios() -> None:
    # a bound below the clip, .1 < log 1.2, cuts the ratio; where PPO is dead is a matter of x alone
    tight = PPOClip(log_ratio_bound=0.1)
    assert at(tight, 0.15) == (close(-math.exp(0.1)), 1.0, close(math.exp(0.1)), close(-math.exp(0.1)))
    assert at(tight, 0.3) == (close(-1.2), 0.0, 0.0, 0.0)
    assert at(tight, -9.0, -1.0) == (close(0.8), 0.0, 0.0, 0.0)
    assert at(tight, -9.0, 1.0).contribution == close(math.exp(-9))


def test_clamp_bound_is_a_parameter() -> None:
    assert at(NoClip(log_ratio_bound=2.0), 3.0).contribution == close(math.exp(2))
    assert at(NoClip(log_ratio_bound=40.0), 50.0).contribution == close(math.exp(40), rel=1e-4)


def test_dual_clip_stops_the_gradient_of_bad_actions_beyond_c() -> None:
    dual = PPOClip(dual_clip=3.0)
    assert at(dual, math.log(2.9), -1.0).gradient == close(2.9)
    assert at(dual, math.log(3.1), -1.0).gradient == 0
    assert at(dual, math.log(3.1), -1.0).weight == 0
    assert at(PPOClip(), math.log(3.1), -1.0).gradient == close(3.1)


def test_asymmetric_sigma_uses_the_narrow_width_where_the_advantage_is_not_positive() -> None:
    objective = GIPO(sigma=1.0, sigma_neg_ratio=0.5)
    weights = [at(objective, 1.0, advantage).weight for advantage in (2.0, 0.0, -2.0)]
    assert weights == [close(math.exp(-0.5)), close(math.exp(-2)), close(math.exp(-2))]


def test_asymmetric_tau_likewise() -> None:
    objective = SAPO(tau_pos=1.0, tau_neg=2.0)
    # ρ = 2: 4p(1−p) with p = sigmoid(τ)
    weights = [at(objective, math.log(2), advantage).weight for advantage in (2.0, 0.0, -2.0)]
    assert weights == [close(0.786448), close(0.419974), close(0.419974)]


@pytest.mark.parametrize("name", CLOSED_FORM_WEIGHTS)
def test_parameters_keep_the_precision_of_their_input(name: str) -> None:
    # the analytic studies run in float64; σ = .2 or τ = 1.05 rounded to float32 would show from the eighth digit on
    for x in (-0.31, 0.1, 0.7):
        for a in (-1.7, 0.6):
            terms = OBJECTIVES[name](torch.tensor(x, dtype=torch.float64), torch.tensor(a, dtype=torch.float64))
            expected = CLOSED_FORM_WEIGHTS[name](x, a) * math.exp(x)
            assert terms.contribution.item() == pytest.approx(expected, rel=1e-13, abs=1e-300)


def test_shapes_broadcast() -> None:
    terms = GIPO()(torch.zeros(6, 4), torch.ones(6, 1))
    assert {term.shape for term in terms} == {torch.Size([6, 4])}


def test_attach_gradient_gives_the_derivative_of_exp() -> None:
    x = torch.tensor([0.3, 100.0], requires_grad=True)
    attached = attach_gradient(torch.tensor([2.0, 3.0]), x)
    (gradient,) = torch.autograd.grad(attached.sum(), x)
    assert attached.tolist() == gradient.tolist() == [2.0, 3.0]


def test_importance_ratio_is_exp_up_to_the_bound() -> None:
    x = torch.linspace(-30, 5, 71)
    torch.testing.assert_close(importance_ratio(x, 5.0), x.exp(), atol=0, rtol=0)


BAD_PARAMETERS = [
    (kind, field, value)
    for kind, field in [
        (GIPO, "sigma"),
        (GIPO, "sigma_neg_ratio"),
        (PPOClip, "clip"),
        (SAPO, "tau_pos"),
        (SAPO, "tau_neg"),
        (GIPO, "log_ratio_bound"),
        (NoClip, "log_ratio_bound"),
        (PPOClip, "log_ratio_bound"),
        (SAPO, "log_ratio_bound"),
        (PPOClip, "dual_clip"),
    ]
    for value in (0.0, -1.0, math.nan, math.inf, -math.inf, 1e300)
] + [
    # in float32 these would be 0, and 0/0 a NaN on policy
    (GIPO, "sigma", 1e-50),
    (GIPO, "sigma_neg_ratio", 1e-50),
    (SAPO, "tau_pos", 1e-50),
    (SAPO, "tau_neg", 1e-50),
]


@pytest.mark.parametrize(("kind", "field", "value"), BAD_PARAMETERS)
def test_bad_parameters_are_refused_by_name(kind: type, field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        kind(**{field: value})


def test_bound_that_would_overflow_is_refused() -> None:
    with pytest.raises(UserError, match="log_ratio_bound"):
        GIPO(log_ratio_bound=41.0)


def test_dual_clip_inside_the_clip_is_refused() -> None:
    with pytest.raises(UserError, match="dual_clip"):
        PPOClip(clip=0.2, dual_clip=1.1)


# Hostile input

LOG_RATIOS = st.floats(-1e4, 1e4, width=32) | st.sampled_from([math.inf, -math.inf, math.nan, 88.8, -88.8, 0.0])
ADVANTAGES = st.floats(-100, 100, width=32) | st.sampled_from([math.inf, -math.inf, math.nan, 0.0])
ROWS = st.lists(
    st.tuples(st.lists(LOG_RATIOS, min_size=3, max_size=3), ADVANTAGES, st.booleans()), min_size=1, max_size=8
)


@given(
    objective=st.sampled_from(list(OBJECTIVES.values())),
    rows=ROWS,
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
@example(objective=GIPO(), rows=[([math.nan] * 3, 1.0, True)], dtype=torch.float32)
@PROPERTY
def test_hostile_log_ratios_are_masked_and_counted(
    objective: Objective, rows: list[tuple[list[float], float, bool]], dtype: torch.dtype
) -> None:
    log_ratio = torch.tensor([row for row, _, _ in rows], dtype=dtype).requires_grad_()
    advantage = torch.tensor([a for _, a, _ in rows], dtype=dtype)
    valid = torch.tensor([v for _, _, v in rows])

    result = policy_loss(objective, log_ratio, advantage, valid)
    (gradient,) = torch.autograd.grad(result.loss, log_ratio)

    usable = [v and math.isfinite(a) and math.isfinite(x) for row, a, v in rows for x in row]
    assert result.used.flatten().tolist() == usable
    assert result.loss.dtype == torch.float32
    assert torch.isfinite(result.loss)
    assert torch.isfinite(gradient).all()
    assert not gradient[~result.used].any()
    for terms in (result.weight, result.contribution):
        assert torch.isfinite(terms).all()
    # the mean is that of the usable elements alone, as if the others had never been there
    kept = torch.where(result.used, log_ratio.detach(), 0.0)[result.used]
    expected = objective(kept.float(), advantage.unsqueeze(-1).expand(-1, 3)[result.used].float()).loss.sum()
    torch.testing.assert_close(result.loss.detach(), expected / max(sum(usable), 1), atol=1e-4, rtol=1e-4)


@given(objective=st.sampled_from(list(OBJECTIVES.values())), x=LOG_RATIOS.filter(math.isfinite))
@PROPERTY
def test_weight_lies_between_zero_and_one(objective: Objective, x: float) -> None:
    for advantage in (-1.0, 1.0):
        assert 0 <= at(objective, x, advantage).weight <= 1


def test_policy_loss_by_hand() -> None:
    # ρ = 1, 2 | 4, NaN | invalid row; A = 1, −1: (−1 − 2 + 4) / 3
    x = torch.tensor([[0.0, math.log(2)], [math.log(4), math.nan], [0.0, 0.0]])
    result = policy_loss(NoClip(), x, torch.tensor([1.0, -1.0, 50.0]), torch.tensor([True, True, False]))
    assert result.loss.item() == close(1 / 3)
    assert result.used.tolist() == [[True, True], [True, False], [False, False]]


def test_nothing_usable_is_a_loss_of_zero() -> None:
    x = torch.full((2, 3), math.nan, requires_grad=True)
    result = policy_loss(GIPO(), x, torch.ones(2))
    (gradient,) = torch.autograd.grad(result.loss, x)
    assert result.loss == 0
    assert not gradient.any()
    assert result.used.sum() == 0


def test_policy_loss_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = policy_loss(GIPO(), torch.full((2, 3), 0.1, dtype=torch.bfloat16), torch.ones(2))
    assert {result.loss.dtype, result.weight.dtype, result.contribution.dtype} == {torch.float32}


def test_masked_mean() -> None:
    values, mask = torch.tensor([1.0, 5.0, math.nan]), torch.tensor([True, True, False])
    assert masked_mean(values, mask) == 3
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)) == 0


def test_ppo_dead_is_where_ppo_has_no_gradient() -> None:
    log_ratio = torch.tensor([1.1, 1.3, 1.3, 0.9, 0.7, 0.7]).log()
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0, 1.0])
    assert ppo_dead(log_ratio, advantage, 0.2).tolist() == [False, True, False, False, True, False]
    assert not ppo_dead(log_ratio, torch.zeros(6), 0.2).any()
    # with ε ≥ 1 no ratio is too small
    assert not ppo_dead(torch.tensor([-1e4]), torch.tensor([-1.0]), 1.0).any()


# KL estimators

MU, PI = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.5, 0.25, 0.25])
EXACT_KL = 0.2 * math.log(0.2 / 0.5) + 0.3 * math.log(0.3 / 0.25) + 0.5 * math.log(0.5 / 0.25)


def kl_gradient(kl: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(kl, logits, retain_graph=True)[0]


@pytest.mark.parametrize("estimator", [k1, k3])
def test_k1_and_k3_are_unbiased_in_value_and_gradient(estimator) -> None:  # type: ignore[no-untyped-def]
    logits = PI.log().requires_grad_()
    log_pi = logits.log_softmax(-1)
    # E_μ over all three actions, not a sample
    expected = (MU * estimator(log_pi - MU.log())).sum()
    exact = (MU * (MU.log() - log_pi)).sum()
    assert expected.item() == close(EXACT_KL)
    torch.testing.assert_close(kl_gradient(expected, logits), kl_gradient(exact, logits))


def test_estimators_by_hand() -> None:
    x = torch.tensor(math.log(2))
    assert k1(x).item() == close(-0.693147, rel=2e-6)
    assert k2(x).item() == close(0.2402265, rel=2e-6)
    assert k3(x).item() == close(0.306853, rel=2e-6)


@given(x=st.floats(-1e4, 1e4, width=32) | st.floats(-(2**-10), 2**-10, width=32))
@example(x=1e4)
@example(x=1e-4)
@PROPERTY
def test_k3_is_finite_and_never_negative(x: float) -> None:
    log_ratio = torch.tensor(x, requires_grad=True)
    value = k3(log_ratio)
    (gradient,) = torch.autograd.grad(value, log_ratio)
    assert math.isfinite(value.item())
    assert value >= 0
    # d/dx = eˣ − 1 with eˣ bounded: it always points back to x = 0
    assert gradient.item() == pytest.approx(math.expm1(min(x, 5.0)), rel=1e-4, abs=1e-7)


def test_k2_is_never_negative_and_agrees_near_zero() -> None:
    x = torch.linspace(-0.01, 0.01, 21)
    torch.testing.assert_close(k2(x), k3(x), atol=1e-6, rtol=0)
    assert (k2(torch.linspace(-1e4, 1e4, 101)) >= 0).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_behaviour_cloning_is_maximum_likelihood(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(12, 3, 5, generator=generator, requires_grad=True)
    latent = torch.randint(5, (12, 3), generator=generator)
    behaviour, advantage = torch.randn(12, 3, generator=generator), torch.randn(12, generator=generator)
    valid = torch.rand(12, generator=generator) > 0.3
    valid[0] = True
    log_pi = logits.log_softmax(-1).gather(-1, latent.unsqueeze(-1)).squeeze(-1)
    cloned = policy_loss(BehaviourCloning(), log_pi - behaviour, advantage, valid)
    # −log π of the data, whoever acted and whatever came of it
    (expected,) = torch.autograd.grad(-log_pi[valid].mean(), logits, retain_graph=True)
    (found,) = torch.autograd.grad(cloned.loss, logits)
    assert torch.allclose(found, expected, atol=1e-7)
    assert bool((cloned.weight == 1).all())
    assert not BehaviourCloning().needs_behaviour


def with_slip(name: str, value: Any) -> Objective:
    """An objective with an attribute of its own; no class, which other tests would be told of as one to name."""
    objective = NoClip()
    object.__setattr__(objective, name, value)
    return objective


def detached(seen: Elements) -> tuple[Terms, Figures]:
    terms, figures = NoClip().on_batch(seen)
    return terms._replace(loss=terms.loss.detach()), figures


def plain_figures(seen: Elements) -> tuple[Terms, Any]:
    return NoClip().on_batch(seen)[0], {"mine": 3.0}


def numbered_figures(seen: Elements) -> tuple[Terms, Any]:
    return NoClip().on_batch(seen)[0], {1: seen.log_ratio.mean()}


def no_figures(seen: Elements) -> tuple[Terms, Any]:
    return NoClip().on_batch(seen)[0], None


def terms_alone(seen: Elements) -> Any:
    return NoClip().on_batch(seen)[0]


def nothing(seen: Elements) -> None:
    return None


def mask_as_weight(seen: Elements) -> tuple[Terms, Figures]:
    terms, figures = NoClip().on_batch(seen)
    return terms._replace(weight=terms.weight > 0), figures


def number_as_weight(seen: Elements) -> tuple[Terms, Figures]:
    return NoClip().on_batch(seen)[0]._replace(weight=1.0), {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("needs", frozenset({"agee"}), r"NoClip\.needs names 'agee'; an objective may need age, entropy, log_prob"),
        ("on_batch", detached, r"the loss of \S+NoClip has no gradient: nothing in it depends on log_ratio"),
        ("on_batch", plain_figures, r"NoClip must return figures that are scalar tensors"),
        (
            "on_batch",
            numbered_figures,
            r"NoClip must return figures that are scalar tensors, .* by names that are text",
        ),
        ("on_batch", no_figures, r"NoClip\.on_batch must return Terms and a dict of figures"),
        ("on_batch", terms_alone, r"NoClip\.on_batch must return Terms and a dict of figures"),
        ("on_batch", nothing, r"NoClip\.on_batch must return Terms and a dict of figures"),
        ("on_batch", mask_as_weight, r"NoClip must return Terms of floating point, .*; got float32, bool, float32"),
        ("on_batch", number_as_weight, r"NoClip must return Terms whose three tensors have the shape \[4, 2\]"),
    ],
)
def test_slips_in_an_objective_of_ones_own_are_named(name: str, value: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        policy_loss(with_slip(name, value), torch.zeros(4, 2, requires_grad=True), torch.ones(4))
    with torch.no_grad():
        policy_loss(with_slip("on_batch", detached), torch.zeros(4, 2), torch.ones(4))  # nobody learns


def test_an_anchor_reads_behaviour_though_the_objective_does_not() -> None:
    assert [reads_behaviour(BehaviourCloning(), weight) for weight in (0.0, 0.1)] == [False, True]
    assert reads_behaviour(NoClip(), 0.0)
