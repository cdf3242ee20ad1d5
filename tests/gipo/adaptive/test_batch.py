"""The width found against closed forms, two-point distributions by hand, and GIPO at that width."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gipo.adaptive import AdaptiveGIPO, effective_share, largest_width, mean_weight
from gipo.common.errors import UserError
from gipo.learning.diagnostics import effective_sample_size
from gipo.objectives import GIPO, Elements, cauchy, gaussian, laplacian, policy_loss

torch.set_num_threads(1)

PROPERTY = settings(deadline=None, max_examples=60, derandomize=True, database=None)
STATISTICS = pytest.mark.parametrize("statistic", [mean_weight, effective_share])


def sigma_of(objective: AdaptiveGIPO, x: list[float] | Tensor, advantage: float = 1.0) -> float:
    log_ratio = torch.as_tensor(x).reshape(-1, 1)
    return policy_loss(objective, log_ratio, torch.full((len(log_ratio),), advantage)).figures["weight/sigma"].item()


@pytest.mark.parametrize("c", [0.3, -1.0, 2.0])
@pytest.mark.parametrize("target", [0.1, 0.5, 0.9])
def test_a_constant_log_ratio_has_its_closed_form(c: float, target: float) -> None:
    # exp(−½(c/σ)²) = m
    expected = abs(c) / math.sqrt(-2 * math.log(target))
    assert sigma_of(AdaptiveGIPO(target, sigma_max=20.0), [c] * 7) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        # exp(−c/σ) = ½ and 1/(1 + (c/σ)²) = ½ at c = 0.8
        (laplacian, 0.8 / math.log(2)),
        (cauchy, 0.8),
    ],
)
def test_other_kernels_have_theirs(kernel: Callable[[Tensor], Tensor], expected: float) -> None:
    assert sigma_of(AdaptiveGIPO(kernel=kernel), [0.8, -0.8]) == pytest.approx(expected, rel=1e-4)


def test_two_points_by_hand() -> None:
    # half of the elements on policy: (1 + w)/2 = .6 where w = .2, σ = c/√(−2 ln .2)
    assert sigma_of(AdaptiveGIPO(0.6), [0.0, 1.5]) == pytest.approx(1.5 / math.sqrt(-2 * math.log(0.2)), rel=1e-4)


def test_effective_share_of_two_points_by_hand() -> None:
    # (1 + u)²/(2(1 + u²)) is .9 at u = 2 and at u = ½; log u = x − ½(x/σ)² at x = 1.5 has the larger σ at u = 2
    for wanted, target in ((2.0, 0.9), (4.0, 25 / 34)):
        share = (1 + wanted) ** 2 / (2 * (1 + wanted**2))
        assert share == pytest.approx(target)
        sigma = 1.5 / math.sqrt(2 * (1.5 - math.log(wanted)))
        found = sigma_of(AdaptiveGIPO(target, effective_share), [0.0, 1.5])
        assert found == pytest.approx(sigma, rel=1e-4)


def test_effective_share_that_falls_and_rises_again_takes_the_largest_width() -> None:
    # Narrow: only x = 0 counts, half of the elements. Wide: u = 1 and e^0.4, whose share is above .9 again.
    x = torch.tensor([0.0, 0.0, 0.4, 0.4])
    shares = [effective_sample_size((x - 0.5 * (x / sigma) ** 2).exp()).item() for sigma in (0.1, 0.3, 5.0)]
    assert shares[0] < 0.6
    assert min(shares[1:]) > 0.9
    assert sigma_of(AdaptiveGIPO(0.9, effective_share), x) == pytest.approx(5.0, rel=1e-5)


def test_a_target_out_of_reach_takes_the_width_that_comes_nearest() -> None:
    # u of x = −4 and x = 4 under σ = ∞ differ by e⁸; the narrowest kernel leaves one of three, none reaches .9
    x = torch.tensor([-4.0, 0.0, 4.0])
    found = sigma_of(AdaptiveGIPO(0.9, effective_share), x)
    shares = {
        sigma: effective_sample_size((x - 0.5 * (x / sigma) ** 2).exp()).item()
        for sigma in torch.logspace(math.log10(0.05), math.log10(5), 2001).tolist()
    }
    best = max(shares, key=lambda sigma: shares[sigma])
    assert shares[best] < 0.9
    assert found == pytest.approx(best, rel=5e-3)
    # fresher than the target at every width, and staler than it at every width
    assert sigma_of(AdaptiveGIPO(0.5), [0.01, -0.01]) == pytest.approx(0.05)
    assert sigma_of(AdaptiveGIPO(0.999), [4.0, -4.0]) == pytest.approx(5.0)


@STATISTICS
def test_on_policy_and_empty_batches_get_the_largest_width(statistic: Callable[..., Tensor]) -> None:
    objective = AdaptiveGIPO(0.5, statistic)
    nothing_usable = policy_loss(objective, torch.full((2, 3), math.nan), torch.ones(2))
    no_rows = policy_loss(objective, torch.zeros(0, 3), torch.zeros(0))
    for result in (nothing_usable, no_rows):
        assert result.figures["weight/sigma"].item() == pytest.approx(5.0)
        assert result.loss == 0
    assert sigma_of(objective, [0.0] * 5) == pytest.approx(5.0)


@STATISTICS
def test_unused_elements_have_no_say(statistic: Callable[..., Tensor]) -> None:
    objective = AdaptiveGIPO(0.7, statistic)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([x, torch.full((5, 3), math.nan), torch.full((60, 3), 3.0)])
    valid = torch.arange(105) < 45
    padded[0, 1] = math.inf
    kept = policy_loss(objective, padded, torch.ones(105), valid)
    alone = objective.on_batch(Elements(*(part.unsqueeze(-1) for part in _without(x, 1))))[1]
    assert kept.figures["weight/sigma"].item() == pytest.approx(alone["weight/sigma"].item(), rel=1e-5)


def _without(x: Tensor, index: int) -> tuple[Tensor, Tensor, Tensor]:
    flat = x.flatten()
    left = torch.cat([flat[:index], flat[index + 1 :]])
    return left, torch.ones_like(left), torch.ones_like(left, dtype=torch.bool)


LOG_RATIOS = st.lists(st.floats(-6, 6, width=32), min_size=1, max_size=12)


@given(x=LOG_RATIOS, low=st.floats(0.02, 0.9), step=st.floats(0.01, 0.09))
@PROPERTY
def test_a_higher_mean_weight_needs_a_wider_kernel(x: list[float], low: float, step: float) -> None:
    found = [sigma_of(AdaptiveGIPO(target), x) for target in (low, low + step)]
    assert found[0] <= found[1] * (1 + 1e-5)


@given(x=LOG_RATIOS, scale=st.floats(1.0, 4.0))
@PROPERTY
def test_the_mean_weight_is_the_target_wherever_a_width_can_make_it_so(x: list[float], scale: float) -> None:
    objective = AdaptiveGIPO(0.5, sigma_min=0.05, sigma_max=5.0)
    values = torch.tensor(x) * scale
    sigma = sigma_of(objective, values)
    mean = {width: GIPO(sigma=width)(values, torch.tensor(1.0)).weight.mean().item() for width in (sigma, 0.05, 5.0)}
    if mean[0.05] < 0.499 and mean[5.0] > 0.501:
        assert mean[sigma] == pytest.approx(0.5, abs=1e-3)
    assert 0.05 <= sigma <= 5.0


@given(x=LOG_RATIOS, target=st.floats(0.05, 0.95))
@PROPERTY
def test_no_wider_kernel_meets_the_effective_share(x: list[float], target: float) -> None:
    values = torch.tensor(x)
    sigma = sigma_of(AdaptiveGIPO(target, effective_share), x)
    wider = [width for width in torch.logspace(math.log10(0.05), math.log10(5.0), 100).tolist() if width > 1.2 * sigma]
    exponents = ((values - 0.5 * (values / width) ** 2).clamp(max=5) for width in wider)
    shares = [effective_sample_size(exponent.exp()).item() for exponent in exponents]
    assert max(shares, default=0.0) <= target + 0.02  # what may rise and fall between two widths of the grid


def test_a_rise_between_two_widths_of_the_grid_is_the_most_that_is_missed() -> None:
    values = [0.0, 0.0, 0.0, 0.0, 2.0, 6.0, 4.5, -2.0, -2.0, -2.0]
    sigma = sigma_of(AdaptiveGIPO(0.5, effective_share), values)
    weight = GIPO(sigma=sigma)(torch.tensor(values), torch.tensor(1.0)).contribution
    assert effective_sample_size(weight).item() == pytest.approx(0.5, abs=1e-3)  # a root, if not the last


@STATISTICS
@pytest.mark.parametrize("kernel", [gaussian, laplacian, cauchy])
def test_loss_and_gradient_are_those_of_gipo_at_the_width_found(
    statistic: Callable[..., Tensor], kernel: Callable[[Tensor], Tensor]
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (2 * torch.randn(64, 4, generator=generator)).requires_grad_()
    advantage, valid = torch.randn(64, generator=generator), torch.rand(64, generator=generator) > 0.2
    found = policy_loss(AdaptiveGIPO(0.6, statistic, sigma_neg_ratio=0.5, kernel=kernel), x, advantage, valid)
    fixed = GIPO(found.figures["weight/sigma"].item(), sigma_neg_ratio=0.5, kernel=kernel)
    expected = policy_loss(fixed, x, advantage, valid)
    torch.testing.assert_close(found[:4], expected[:4])
    assert 0.05 < found.figures["weight/sigma"] < 5
    for ours, theirs in zip(*(torch.autograd.grad(each.loss, x) for each in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_narrower_width_of_bad_actions_counts() -> None:
    # A ≤ 0 halves the width, so σ₊ must be twice as wide for the same weights
    narrow, wide, idle = (sigma_of(AdaptiveGIPO(sigma_neg_ratio=0.5), [1.0, -1.0], a) for a in (1.0, -1.0, 0.0))
    assert wide == pytest.approx(2 * narrow, rel=1e-4)
    assert idle == wide


def test_calling_it_is_a_batch_of_which_every_element_counts() -> None:
    x, advantage = torch.tensor([[0.5], [1.0]]), torch.tensor([[1.0], [-1.0]])
    terms, _ = AdaptiveGIPO().on_batch(Elements(x, advantage, torch.ones(2, 1, dtype=torch.bool)))
    torch.testing.assert_close(AdaptiveGIPO()(x, advantage), terms)


@STATISTICS
def test_the_search_never_waits_for_the_device(statistic: Callable[..., Tensor]) -> None:
    # A meta tensor has no values: whatever would look at one raises.
    x, advantage = (torch.zeros(6, size, device="meta") for size in (4, 1))
    used = torch.ones(6, 4, dtype=torch.bool, device="meta")
    terms, figures = AdaptiveGIPO(0.5, statistic).on_batch(Elements(x, advantage, used))
    assert figures["weight/sigma"].device == terms.loss.device == x.device


@STATISTICS
def test_more_elements_than_fit_at_once_give_the_same_width(
    statistic: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(500, generator=torch.Generator().manual_seed(2))
    whole = sigma_of(AdaptiveGIPO(0.7, statistic), x)
    monkeypatch.setattr("gipo.adaptive.batch.BLOCK", 1100)
    assert sigma_of(AdaptiveGIPO(0.7, statistic), x) == whole


@STATISTICS
def test_autocast_changes_nothing(statistic: Callable[..., Tensor]) -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(3))
    plain = sigma_of(AdaptiveGIPO(0.7, statistic), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert sigma_of(AdaptiveGIPO(0.7, statistic), x) == plain


def test_largest_width_of_a_known_slack() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    found = largest_width(lambda sigma: torch.cos(sigma), 0.1, 10.0, like)
    assert found.item() == pytest.approx(5 * math.pi / 2, rel=1e-5)
    never = largest_width(lambda sigma: -((sigma.log() - 0.3) ** 2) - 1, 0.1, 10.0, like)
    assert never.item() == pytest.approx(math.exp(0.3), rel=1e-2)
    equal = largest_width(lambda sigma: -torch.ones_like(sigma), 0.1, 10.0, like)
    assert equal.item() == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target": 0.0}, "target"),
        ({"target": 1.0}, "target"),
        ({"target": math.nan}, "target"),
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_max": math.inf}, "sigma_max"),
        ({"sigma_min": 5.0}, "below sigma_max"),
        ({"sigma_neg_ratio": -1.0}, "sigma_neg_ratio"),
        ({"log_ratio_bound": 41.0}, "log_ratio_bound"),
    ],
)
def test_bad_parameters_are_refused_by_name(fields: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        AdaptiveGIPO(**fields)
