"""What a critic's outputs mean: closed forms, what moments leave as it was, and updates without a unit of rewards."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.learning.value_scale import Expectile, PopArt, Standardised, SymlogTwoHot, ValueScale, symexp, symlog
from gipo.networks import SeparateNetworks
from gipo.policies import Policy, Spaces, TokenPolicy, build
from gipo.vla.policies import VLATokenPolicy
from tests.gipo.vla.builders import SPACES, observations

torch.set_num_threads(1)

SCALES = {"standardised": Standardised, "PopArt": PopArt, "two-hot": SymlogTwoHot}
every_scale = pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)


def policy_with(scale: ValueScale, learned: bool = False) -> Policy:
    torch.manual_seed(0)
    policy = TokenPolicy(Spaces(3, (-1.0,), (1.0,)), 5, lambda i, o: SeparateNetworks(i, o, (8,)), normalise=False)
    policy.scale_values(scale, learned)
    return policy


def used(target: Tensor) -> Tensor:
    return torch.ones_like(target, dtype=torch.bool)


# Closed forms


def test_symlog_and_its_inverse() -> None:
    x = torch.tensor([-(math.e**3) + 1, -1.0, 0.0, 1e-4, 1.0, math.e**5 - 1])
    torch.testing.assert_close(
        symlog(x), torch.tensor([-3, -math.log(2), 0, 1e-4, math.log(2), 5]), atol=1e-7, rtol=1e-4
    )
    torch.testing.assert_close(symexp(symlog(x)), x)


def test_a_two_hot_target_is_decoded_as_what_it_was() -> None:
    scale = SymlogTwoHot(bins=21, limit=5.0)
    value = torch.cat((torch.linspace(-140, 140, 101), scale.support.sign() * scale.support.abs().expm1()))
    low, share = scale.two_hot(value)
    probability = torch.zeros(len(value), 21).scatter(1, low.unsqueeze(1), (1 - share).unsqueeze(1))
    probability.scatter_add_(1, (low + 1).unsqueeze(1), share.unsqueeze(1))
    torch.testing.assert_close(scale.decode(probability.log()), value, atol=1e-4, rtol=1e-4)
    # bins are .5 apart: symlog(e^.7 − 1) = .7 is 1.4 bins above the middle one
    low, share = scale.two_hot(torch.tensor(math.exp(0.7) - 1))
    assert (int(low), float(share)) == (11, pytest.approx(0.4, abs=1e-5))


def test_values_are_decoded_as_they_are_where_products_of_matrices_are_of_ten_bits() -> None:
    scale = SymlogTwoHot()
    outputs = torch.randn(50, 101, generator=torch.Generator().manual_seed(0)) * 3
    with torch.autocast("cpu", torch.bfloat16):
        found = scale.decode(outputs)
    torch.testing.assert_close(found, scale.decode(outputs), atol=0, rtol=1e-6)


def test_an_expectile_is_where_what_is_above_and_below_balance() -> None:
    scale = Expectile(tau=0.7)
    torch.testing.assert_close(
        scale.loss(torch.tensor([[1.0], [1.0]]), torch.tensor([3.0, 0.0])), torch.tensor([0.7 * 4, 0.3 * 1])
    )
    # Σ |τ − 1[u < 0]|·u = 0 at V = .7 for targets 0 and 1: .7·(1 − V) = .3·V
    value = torch.tensor([[0.0]], requires_grad=True)
    for _ in range(400):
        (slope,) = torch.autograd.grad(scale.loss(value.expand(2, 1), torch.tensor([0.0, 1.0])).mean(), value)
        value = (value - 0.2 * slope).detach().requires_grad_()
    assert float(value.detach()) == pytest.approx(0.7, abs=1e-4)
    plain = ValueScale().loss(torch.tensor([[1.0]]), torch.tensor([3.0]))
    torch.testing.assert_close(2 * Expectile(0.5).loss(torch.tensor([[1.0]]), torch.tensor([3.0])), plain)


@pytest.mark.parametrize("tau", [0.0, 1.0, float("nan")])
def test_an_expectile_lies_between_worst_and_best(tau: float) -> None:
    with pytest.raises(UserError, match=r"value_scale.tau must lie in \(0, 1\)"):
        Expectile(tau)


def test_the_loss_is_torchrls() -> None:
    from torchrl.objectives import IQLLoss

    value, target = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        Expectile(0.8).loss(value.unsqueeze(-1), target), IQLLoss.loss_value_diff(target - value, 0.8)
    )


def test_values_beyond_the_bins_are_the_outermost() -> None:
    scale = SymlogTwoHot(bins=11, limit=2.0)
    low, share = scale.two_hot(torch.tensor([-1e6, 1e6, math.inf]))
    assert low.tolist() == [0, 9, 9]
    assert share.tolist() == [0, 1, 1]
    assert scale.decode(torch.tensor([[-100.0] * 10 + [100.0]])).item() == pytest.approx(math.exp(2) - 1)


def test_two_hot_loss_is_the_cross_entropy() -> None:
    scale, logits = SymlogTwoHot(bins=5, limit=2.0), torch.randn(4, 5, requires_grad=True)
    target = torch.tensor([0.0, math.exp(0.25) - 1, 100.0, -(math.exp(1.5) - 1)])
    hot = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0.75, 0.25, 0], [0, 0, 0, 0, 1], [0.5, 0.5, 0, 0, 0]])
    loss = scale.loss(logits, target)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, hot, reduction="none"), atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient, logits.softmax(-1).detach() - hot, atol=1e-5, rtol=1e-5)


def test_a_target_that_is_no_number_is_no_number_of_a_loss() -> None:
    """So that the update is skipped, as with any scale."""
    assert SymlogTwoHot().loss(torch.zeros(1, 101), torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("scale", [Standardised, PopArt])
def test_moments_are_those_of_all_targets_while_they_are_few(scale: type[Standardised]) -> None:
    policy, found = policy_with(scale(rate=0.1)), [5 + 3 * torch.randn(1000), 7 + 2 * torch.randn(1000)]
    for target in found:
        policy.learn_values(target, used(target))
    # the weights of the first two are .9 and 1 over their sum
    weights = torch.tensor([0.9, 1.0]) / 1.9
    mean = sum(w * t.mean() for w, t in zip(weights, found, strict=True))
    square = sum(w * (t.var() + t.mean() ** 2) for w, t in zip(weights, found, strict=True))
    figures = policy.value_scale.figures()
    torch.testing.assert_close(figures["value/mean"], mean)
    torch.testing.assert_close(figures["value/std"], (square - mean**2).sqrt(), rtol=1e-4, atol=0)


def test_moments_leave_out_what_is_not_used_or_not_finite() -> None:
    policy, target = policy_with(Standardised()), torch.tensor([1.0, 3.0, math.inf, math.nan, 100.0])
    policy.learn_values(target, torch.tensor([True, True, True, True, False]))
    assert float(policy.value_scale.figures()["value/mean"]) == 2
    assert float(policy.value_scale.figures()["value/std"]) == pytest.approx(math.sqrt(2))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    policy.learn_values(torch.full((3,), math.nan), torch.ones(3, dtype=torch.bool))
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_constant_targets_have_a_floor_to_their_deviation() -> None:
    policy, target = policy_with(PopArt()), torch.full((8,), 3.0)
    policy.learn_values(target, used(target))
    assert float(policy.value_scale.figures()["value/std"]) == pytest.approx(1e-4)
    assert torch.isfinite(policy.value_scale.loss(torch.zeros(8, 1), target)).all()


# What stays when moments move


def test_popart_keeps_values_when_moments_move() -> None:
    policy, observation = policy_with(PopArt(rate=0.5)), torch.randn(64, 3)
    for shift, spread in ((0, 1), (50, 8), (-3, 0.01), (1e4, 1e3)):
        target = shift + spread * torch.randn(256)
        before, std = policy.value(observation).detach(), policy.value_scale.figures()["value/std"]
        policy.learn_values(target, used(target))
        after = policy.value(observation).detach()
        if std:  # before the first moments all values are 0
            size = float(sum(policy.value_scale.figures().values()))  # what float32 rounds
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6 * size)
        else:
            assert before.abs().max() == 0 < after.abs().max()


def test_standardised_values_move_with_the_moments() -> None:
    policy, observation = policy_with(Standardised(rate=1.0)), torch.randn(64, 3)
    outputs = policy.value_outputs(observation).squeeze(-1)
    for shift, spread in ((0, 1), (50, 8)):
        target = shift + spread * torch.randn(256)
        policy.learn_values(target, used(target))
        torch.testing.assert_close(policy.value(observation), target.mean() + target.std() * outputs)


@pytest.mark.parametrize("scale", [Standardised, PopArt])
def test_what_a_critic_has_learned_stays_when_it_is_given_a_scale(scale: type[Standardised]) -> None:
    observation, target = torch.randn(64, 3), 30 + 5 * torch.randn(256)
    plain = policy_with(ValueScale()).value(observation)
    policy = policy_with(scale(), learned=True)
    torch.testing.assert_close(policy.value(observation), plain)
    policy.learn_values(target, used(target))
    assert policy.value_scale.figures()["value/std"] > 4
    torch.testing.assert_close(policy.value(observation), plain, rtol=1e-4, atol=1e-4)


def test_values_of_two_hot_begin_at_0_for_every_step_of_a_chunk() -> None:
    policy = VLATokenPolicy(SPACES, bins=5)
    policy.scale_values(SymlogTwoHot(bins=7), learned=False)
    torch.testing.assert_close(policy.value(observations(5)), torch.zeros(5, SPACES.chunk), atol=1e-6, rtol=0)


# Descriptions and refusals


@every_scale
def test_description_rebuilds_the_critic(scale: type[ValueScale]) -> None:
    policy, observation = policy_with(scale()), torch.randn(9, 3)
    policy.learn_values(observation[:, 0], used(observation[:, 0]))
    with torch.no_grad():
        for parameter in policy.critic_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    again = build(policy.description())
    again.load_state_dict(policy.state_dict())
    assert again.description() == policy.description()
    assert torch.equal(again.value(observation), policy.value(observation))


def test_values_as_they_are_leave_no_trace() -> None:
    policy = policy_with(ValueScale())
    assert "value_scale" not in policy.description()
    assert not any("value_scale" in name for name in policy.state_dict())


@every_scale
def test_a_critic_without_a_last_layer_is_refused(scale: type[ValueScale]) -> None:
    policy = policy_with(ValueScale())
    policy.network.critic = nn.Linear(3, 1)
    with pytest.raises(UserError, match=r"ends in a torch\.nn\.Linear of its own; Linear has none"):
        policy.scale_values(scale(), learned=False)


@pytest.mark.parametrize(
    "bad",
    [lambda: PopArt(0.0), lambda: Standardised(1.5), lambda: SymlogTwoHot(bins=1), lambda: SymlogTwoHot(limit=99)],
)
def test_impossible_scales_are_refused(bad: Callable[[], ValueScale]) -> None:
    with pytest.raises(UserError, match=r"value_scale"):
        bad()


# Whole runs


@pytest.mark.usefixtures("no_plot")
def test_the_unit_of_rewards_changes_nothing(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    """From the first value, before there are moments, to the last update: only the size of values differs."""

    def run(name: str, **options: Any) -> Policy:
        alone = {"data__task": "Tiny-v0", "data__collector__workers": 0, "trainer__precision": "32-true"}
        alone |= {"data__total_frames": 64}
        main(tiny(name, **alone | options))
        return policy_from(load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt"))

    def distance(one: Policy, other: Policy) -> float:
        pairs = zip(one.actor_parameters(), other.actor_parameters(), strict=True)
        return max(float((a - b).detach().abs().max()) for a, b in pairs)

    scaled = {"model__value_scale": "PopArt"}
    small, large = (run(f"popart-{by}", data__reward_scale=by, **scaled) for by in (1, 100))
    assert distance(small, large) < 1e-5
    x = torch.randn(50, small.spaces.observation_size)
    torch.testing.assert_close(large.value(x), 100 * small.value(x), rtol=1e-3, atol=1e-2)
    assert distance(*(run(f"plain-{by}", data__reward_scale=by) for by in (1, 100))) > 1e-4


@pytest.mark.usefixtures("no_plot")
def test_a_run_from_a_checkpoint_has_its_scale_or_gives_it_one(
    tiny: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = {"data__task": "Tiny-v0", "data__collector__workers": 0, "data__total_frames": 32}
    first = tmp_path / "first" / "checkpoints" / "last.ckpt"
    main(tiny("first", **alone))
    main(tiny("second", model__init_from=first, model__value_scale="PopArt", **alone))
    second = tmp_path / "second" / "checkpoints" / "last.ckpt"
    assert isinstance(policy_from(load_checkpoint(second)).value_scale, PopArt)
    main(tiny("third", model__init_from=second, **alone))
    third = policy_from(load_checkpoint(tmp_path / "third" / "checkpoints" / "last.ckpt")).value_scale
    assert isinstance(third, PopArt)
    assert third.count == 2
    for options, said in (
        ({"model__init_from": second, "model__value_scale": "SymlogTwoHot"}, "asks for SymlogTwoHot"),
        (
            {"ckpt_path": first, "data__total_frames": 64, "model__value_scale": "PopArt"},
            "has value_scale=ValueScale with {}, and model.value_scale asks for PopArt",
        ),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(tiny("fourth", **alone | options))
        assert said in capsys.readouterr().err
