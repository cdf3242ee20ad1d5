"""Widths by age: the formula by hand, its options one by one, and the slope that is measured."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gipo.adaptive import AgeAwareGIPO
from gipo.adaptive.drift import DECAY, RIDGE, moments_after, no_moments, slope
from gipo.common.errors import UserError
from gipo.objectives import GIPO, PolicyLoss, policy_loss

GIVEN: dict[str, Any] = {"sigma_fresh": 0.3, "sigma_age": 0.2}


def judged(objective: AgeAwareGIPO, x: list[Any], advantage: float = 1.0, age: int = 0, **known: Any) -> PolicyLoss:
    log_ratio = torch.tensor(x).reshape(len(x), -1)
    ages = torch.full((len(x),), age)
    return policy_loss(objective, log_ratio, torch.full((len(x),), advantage), age=ages, **known)


@pytest.mark.parametrize("age", [0, 1, 16, 1000])
def test_it_is_gipo_with_the_width_of_its_age(age: int) -> None:
    sigma = min(math.sqrt(0.3**2 + age * 0.2**2), 2.0)
    x = torch.linspace(-4, 4, 81).tolist()
    for advantage in (1.5, -0.5):
        ours = judged(AgeAwareGIPO(**GIVEN), x, advantage, age)
        theirs = policy_loss(GIPO(sigma=sigma), torch.tensor(x).unsqueeze(-1), torch.full((81,), advantage))
        torch.testing.assert_close(ours[:4], theirs[:4])
        assert ours.figures["weight/sigma"].item() == pytest.approx(sigma)
        assert ours.figures["weight/sigma_age"].item() == pytest.approx(0.2)


def test_ages_of_one_batch_have_their_own_widths() -> None:
    x, age = torch.full((3, 1), 0.5), torch.tensor([0, 4, 16])
    found = policy_loss(AgeAwareGIPO(**GIVEN), x, torch.ones(3), age=age)
    expected = [math.exp(-0.125 / (0.09 + 0.04 * k)) for k in (0, 4, 16)]
    assert found.weight.flatten().tolist() == pytest.approx(expected)
    used = policy_loss(AgeAwareGIPO(**GIVEN), x, torch.ones(3), torch.tensor([True, True, False]), age=age)
    assert used.figures["weight/sigma"].item() == pytest.approx((0.3 + 0.5) / 2)  # √.09 and √.25; not √.73


@pytest.mark.parametrize("age", [0, 3, 50])
@pytest.mark.parametrize("outward_only", [False, True])
def test_the_bound_is_reached_and_never_passed(age: int, outward_only: bool) -> None:
    variance = 0.09 + 0.04 * age
    x = torch.cat([torch.linspace(-8, 8, 4001), torch.tensor([variance])]).tolist()
    objective = AgeAwareGIPO(**GIVEN, outward_only=outward_only)
    for advantage in (1.0, -1.0):
        largest = judged(objective, x, advantage, age).contribution.max().item()
        assert largest == pytest.approx(math.exp(variance / 2), rel=1e-6)


@pytest.mark.parametrize("options", [{"sigma_neg_ratio": 3.0}, {"advantage_gain": 100.0}, {"sigma_age": 9.0}])
def test_no_option_widens_beyond_the_largest_width(options: dict[str, float]) -> None:
    objective = AgeAwareGIPO(**GIVEN | options, outward_only=True)
    x = torch.linspace(-8, 8, 401).tolist()
    for advantage in (2.0, -2.0):
        found = judged(objective, x, advantage, age=50)
        assert found.contribution.max().item() <= math.exp(objective.sigma_max**2 / 2) * (1 + 1e-6)


def test_a_step_back_towards_the_behaviour_policy_is_not_damped() -> None:
    objective = AgeAwareGIPO(**GIVEN, outward_only=True)
    outward, back = math.exp(-0.125 / 0.09), 1.0
    assert judged(objective, [0.5, -0.5]).weight.flatten().tolist() == pytest.approx([outward, back])
    # a bad action that became likelier: ρ as far as exp(σ²/2), and that from there on
    cut = math.exp(0.045 - 0.5)
    assert judged(objective, [0.5, -0.5, 0.04], -1.0).weight.flatten().tolist() == pytest.approx([cut, outward, 1.0])


def test_one_weight_for_a_step_is_the_geometric_mean() -> None:
    x = [[0.3, -0.6, 0.0, math.nan]]
    joint = math.exp(-0.5 * (0.09 + 0.36) / 3 / 0.09)
    found = judged(AgeAwareGIPO(**GIVEN, joint=True), x)
    # u of the first dimension stays within the bound
    assert found.weight[0, :3].tolist() == pytest.approx([min(joint, math.exp(0.045 - 0.3)), joint, joint])


def test_large_advantages_are_damped_less() -> None:
    objective = AgeAwareGIPO(**GIVEN, advantage_gain=0.5)
    for advantage in (0.0, 1.0, -2.0):
        expected = math.exp(-0.125 / (0.09 * (1 + 0.5 * advantage**2)))
        assert judged(objective, [0.5], advantage).weight.item() == pytest.approx(expected)
    assert judged(objective, [0.5], 100.0).figures["weight/sigma"].item() == pytest.approx(2.0)  # at most sigma_max


def test_bad_actions_have_a_width_of_their_own() -> None:
    objective = AgeAwareGIPO(**GIVEN, sigma_neg_ratio=0.5)
    assert judged(objective, [0.3], -1.0).weight.item() == pytest.approx(math.exp(-0.5 * (0.3 / 0.15) ** 2))
    # half of the largest width, however old they are
    assert judged(objective, [1.0], -1.0, age=1000).weight.item() == pytest.approx(math.exp(-0.5))


def test_rare_tokens_are_damped_by_what_their_probability_changed() -> None:
    objective = AgeAwareGIPO(**GIVEN, probability_floor=0.05)
    # from .001 to .003: x = 1.1, but the policy is hardly another one
    rare = judged(objective, [math.log(3)], log_prob=torch.tensor([[math.log(0.003)]]))
    distance = math.log(0.053 / 0.051)
    # the bound exp(σ²/2) is reached first: w = exp(σ²/2)/ρ
    assert math.exp(-0.5 * (distance / 0.3) ** 2) > math.exp(0.045) / 3
    assert rare.contribution.item() == pytest.approx(math.exp(0.045))
    back = judged(objective, [-math.log(3)], log_prob=torch.tensor([[math.log(0.001)]]))
    assert back.weight.item() == pytest.approx(math.exp(-0.5 * (distance / 0.3) ** 2), rel=1e-4)
    # a likely one is damped as without
    common = judged(objective, [-math.log(1.5)], log_prob=torch.tensor([[math.log(0.6)]]))
    assert common.weight.item() == pytest.approx(math.exp(-0.5 * (math.log(0.65 / 0.95) / 0.3) ** 2), rel=1e-4)


def drifted(age: Tensor, start: float, step: float, seed: int = 0) -> Tensor:
    """Log-ratios [N, 4] of policies that drifted: Var x = start² + k·step²."""
    generator = torch.Generator().manual_seed(seed)
    return (start**2 + age.unsqueeze(-1) * step**2).sqrt() * torch.randn(len(age), 4, generator=generator)


def test_the_drift_is_measured() -> None:
    objective = AgeAwareGIPO()
    memory, found = objective.memory(), None
    for seed in range(60):
        age = torch.randint(0, 16, (512,), generator=torch.Generator().manual_seed(seed))
        x = drifted(age, 0.4, 0.15, seed)
        found = policy_loss(objective, x, torch.ones(512), age=age, memory=memory)
        memory = found.memory
    assert found is not None
    assert found.figures["weight/sigma_age"].item() == pytest.approx(0.15, rel=0.03)


def test_before_anything_was_seen_a_root_of_a_version_adds_a_tenth() -> None:
    found = judged(AgeAwareGIPO(), [-1.0], age=7)
    assert found.figures["weight/sigma_age"].item() == pytest.approx(0.1)
    assert found.figures["weight/sigma"].item() == pytest.approx(0.4)  # √(.3² + 7·.1²)


def test_where_ages_do_not_differ_the_prior_decides() -> None:
    for age in (0, 7):
        ages = torch.full((512, 4), age)
        moments = moments_after(no_moments(), torch.ones(512, 4), ages, torch.ones(512, 4) > 0)
        assert slope(moments, 0.01).item() == pytest.approx(0.01)
    assert slope(no_moments(), 0.04).item() == pytest.approx(0.04)


def test_the_slope_is_that_of_least_squares_by_hand() -> None:
    # x² = 1, 2, 6 at ages 0, 1, 2: covariance 5/3, variance 2/3
    square, age, used = torch.tensor([1.0, 2, 6, 9]), torch.tensor([0, 1, 2, 9]), torch.tensor([1, 1, 1, 0]) > 0
    moments = moments_after(no_moments(), square, age, used)
    assert slope(moments, 1.0).item() == pytest.approx((5 / 3 + RIDGE) / (2 / 3 + RIDGE))
    assert slope(moments_after(no_moments(), -square, age, used), 0.0).item() == 0  # never negative
    # a second batch counts as much as the first, but for what the first has decayed
    later = moments_after(moments, square * 0, age, used)
    assert later[3].item() == pytest.approx(DECAY * moments[3].item())


def test_ages_far_from_zero_have_the_same_slope() -> None:
    age = torch.arange(512) % 16
    x, used = drifted(age, 0.4, 0.2), torch.ones(512, 4) > 0
    near, far = (
        slope(moments_after(no_moments(), x**2, (age + late).unsqueeze(-1).expand(-1, 4), used), 0.0).item()
        for late in (0, 100_000)
    )
    assert far == pytest.approx(near, rel=1e-3)


def test_ranks_remember_together_what_one_would() -> None:
    objective, age = AgeAwareGIPO(), torch.arange(64) % 8
    x = drifted(age, 0.3, 0.3)

    def remembered(rows: slice) -> Tensor:
        found = policy_loss(objective, x[rows], torch.ones(64)[rows], age=age[rows], memory=objective.memory()).memory
        assert found is not None
        return found

    torch.testing.assert_close((remembered(slice(0, 32)) + remembered(slice(32, 64))) / 2, remembered(slice(0, 64)))


def test_outliers_count_as_far_as_the_bound_and_a_given_drift_remembers_nothing() -> None:
    age = torch.tensor([0, 1])
    found = policy_loss(AgeAwareGIPO(), torch.tensor([[0.0], [80.0]]), torch.ones(2), age=age, memory=no_moments())
    assert found.memory is not None
    assert found.memory[3].item() == pytest.approx((1 - DECAY) * 25 / 2)
    below = policy_loss(AgeAwareGIPO(), torch.tensor([[0.0], [-80.0]]), torch.ones(2), age=age, memory=no_moments())
    assert below.memory is not None
    assert torch.equal(below.memory, found.memory)
    assert AgeAwareGIPO(**GIVEN).memory() is None
    assert judged(AgeAwareGIPO(**GIVEN), [0.1]).memory is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sigma_fresh": 0.0}, "sigma_fresh"), ({"sigma_max": math.inf}, "sigma_max"),
        ({"sigma_fresh": 3.0}, "not be above sigma_max"),
        ({"sigma_age": -0.1}, "sigma_age"), ({"sigma_age": math.nan}, "sigma_age"),
        ({"advantage_gain": -1.0}, "advantage_gain"), ({"probability_floor": 1.5}, "must be from 0 to 1, got 1.5"),
        ({"sigma_neg_ratio": 0.0}, "sigma_neg_ratio"), ({"log_ratio_bound": 50.0}, "log_ratio_bound"),
    ],
)  # fmt: skip
def test_bad_parameters_are_refused_by_name(fields: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        AgeAwareGIPO(**fields)


def test_what_a_later_version_did_says_nothing_of_drift() -> None:
    """Logs may be newer than the learner: they count as fresh, and their x² would bend the slope down to nothing."""
    x, age = torch.randn(256, 2, generator=torch.Generator().manual_seed(0)), torch.arange(256) % 10
    x = x * (0.09 + 0.04 * age).sqrt().unsqueeze(-1)
    newer = torch.cat([x, torch.full((256, 2), 2.0)]), torch.cat([age, torch.full((256,), -40)])
    alone, both = (
        policy_loss(AgeAwareGIPO(), some, torch.ones(len(some)), age=ages, memory=no_moments())
        for some, ages in ((x, age), newer)
    )
    slopes = [slope(found.memory, 0.1**2).item() for found in (alone, both) if found.memory is not None]
    assert slopes[0] == pytest.approx(0.04, abs=0.02)
    assert slopes[1] == pytest.approx(slopes[0], rel=0.1)
    assert both.weight[-1].tolist() == pytest.approx([math.exp(-0.5 * (2 / 0.3) ** 2)] * 2)


def test_an_advantage_without_bounds_overflows_nothing() -> None:
    found = policy_loss(AgeAwareGIPO(**GIVEN), torch.zeros(1, 1), torch.tensor([3e30]), age=torch.tensor([2]))
    assert found.weight.item() == 1
