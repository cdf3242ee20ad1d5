"""Advantages against TorchRL's reference functions, hand numbers and a plain loop."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torchrl.objectives.value.functional import generalized_advantage_estimate, vtrace_advantage_estimate

from datamodules.advantages import GAE, Estimate, Estimator, Trajectories, VTrace, discounted_sums, estimated
from gipo.common.errors import UserError

WIDTH, TIME, GAMMA = 5, 40, 0.97
ROUNDING = 2e-6  # TorchRL's discounts are float32


def trajectories(seed: int) -> tuple[Trajectories, dict[str, Tensor]]:
    """WIDTH simulators of TIME steps with ends of both kinds: end to end [M], and as TorchRL takes them [N, T, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (WIDTH, TIME)
    reward, value, next_value, log_ratio = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    draw = torch.rand(*shape, generator=generator)
    terminated, truncated = draw < 0.08, (draw > 0.9) & (draw < 0.97)
    done = terminated | truncated
    # The value of the next frame, except where an episode ends: there s_{t+1} is no frame of the buffer.
    next_value[:, :-1] = torch.where(done[:, :-1], next_value[:, :-1], value[:, 1:])
    linked = ~done
    linked[:, -1] = False
    flat = Trajectories(*(x.flatten() for x in (reward, value, next_value, terminated, linked, log_ratio)))
    batched = {
        "reward": reward, "state_value": value, "next_state_value": next_value, "terminated": terminated,
        "done": done, "log_ratio": log_ratio,
    }  # fmt: skip
    return flat, {name: tensor.unsqueeze(-1) for name, tensor in batched.items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_gae_equals_torchrl(seed: int, lam: float) -> None:
    frames, batched = trajectories(seed)
    del batched["log_ratio"]
    advantage, target = generalized_advantage_estimate(GAMMA, lam, **batched)
    ours = GAE(GAMMA, lam)(frames)
    assert torch.allclose(ours.advantage, advantage.flatten(), atol=ROUNDING)
    assert torch.allclose(ours.target, target.flatten(), atol=ROUNDING)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rho_bar", "c_bar"), [(1.0, 1.0), (2.0, 0.5)])
def test_vtrace_equals_torchrl(seed: int, rho_bar: float, c_bar: float) -> None:
    frames, batched = trajectories(seed)
    log_pi = batched.pop("log_ratio")
    _, target = vtrace_advantage_estimate(
        GAMMA, log_pi, torch.zeros_like(log_pi), rho_thresh=rho_bar, c_thresh=c_bar, **batched
    )
    ours = VTrace(GAMMA, 1.0, rho_bar, c_bar)(frames)
    assert torch.allclose(ours.target, target.flatten(), atol=ROUNDING)
    # A = r + γ·v' − V, v' the target of the next frame, bootstrapped where the episode was cut
    target = ours.target.view(WIDTH, TIME)
    linked, terminated = frames.linked.view(WIDTH, TIME), frames.terminated.view(WIDTH, TIME)
    following = torch.where(linked, target.roll(-1, 1), frames.next_value.view(WIDTH, TIME)) * ~terminated
    expected = frames.reward.view(WIDTH, TIME) + GAMMA * following - frames.value.view(WIDTH, TIME)
    assert torch.allclose(ours.advantage.view(WIDTH, TIME), expected, atol=1e-9)


@pytest.mark.parametrize("lam", [1.0, 0.6, 0.0])
def test_targets_of_vtrace_on_policy_are_those_of_gae(lam: float) -> None:
    frames, _ = trajectories(0)
    on_policy = frames._replace(log_ratio=torch.zeros_like(frames.log_ratio))
    assert torch.allclose(VTrace(GAMMA, lam)(on_policy).target, GAE(GAMMA, lam)(on_policy).target, atol=1e-9)


def test_vtrace_begins_with_lambda_one() -> None:
    frames, _ = trajectories(0)
    assert torch.equal(VTrace(GAMMA)(frames).target, VTrace(GAMMA, 1.0)(frames).target)


def one_episode(terminated: bool) -> Trajectories:
    """Two steps of reward 1, values 10, 20, and 30 after the end."""
    return Trajectories(
        reward=torch.tensor([1.0, 1.0]),
        value=torch.tensor([10.0, 20.0]),
        next_value=torch.tensor([20.0, 30.0]),
        terminated=torch.tensor([False, terminated]),
        linked=torch.tensor([True, False]),
        log_ratio=torch.tensor([0.0, 0.0]),
    )


def test_truncation_is_bootstrapped_and_termination_is_not() -> None:
    # δ₁ = 1 + ½·30 − 20 = −4, or 1 − 20 = −19; δ₀ = 1 + ½·20 − 10 = 1; A₀ = δ₀ + ½·½·δ₁
    cut, ended = (GAE(0.5, 0.5)(one_episode(terminated)).advantage for terminated in (False, True))
    assert cut.tolist() == [0.0, -4.0]
    assert ended.tolist() == [1 - 4.75, -19.0]


def test_the_last_frame_of_the_buffer_never_leaks_into_the_first() -> None:
    frames = one_episode(terminated=False)
    all_linked = frames._replace(linked=torch.tensor([True, True]))  # as if the buffer were a ring
    assert torch.equal(GAE(0.5, 0.5)(all_linked).advantage, GAE(0.5, 0.5)(frames).advantage)


@given(st.lists(st.tuples(st.floats(-100, 100), st.sampled_from([0.0, 0.5, 0.99, 1.0])), min_size=1, max_size=70))
@settings(deadline=None)
def test_discounted_sums_equal_a_loop(steps: list[tuple[float, float]]) -> None:
    x, decay = (torch.tensor(column, dtype=torch.float64) for column in zip(*steps, strict=True))
    expected, following = torch.zeros_like(x), 0.0
    for t in reversed(range(len(x))):
        following = float(x[t]) + (float(decay[t]) * following if t + 1 < len(x) else 0.0)
        expected[t] = following
    assert torch.allclose(discounted_sums(x, decay), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    "bad", [{"gamma": 1.1}, {"gamma": -0.1}, {"lam": 2}, {"gamma": float("nan")}, {"lam": float("inf")}]
)
@pytest.mark.parametrize("estimator", [GAE, VTrace])
def test_discounts_outside_the_unit_interval_are_refused(estimator: type, bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        estimator(**bad)


@pytest.mark.parametrize("bad", [{"c_bar": 0}, {"c_bar": 2.0, "rho_bar": 1.0}, {"rho_bar": float("nan")}])
def test_vtrace_truncations_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match="c_bar"):
        VTrace(**bad)


def test_what_is_no_number_in_one_run_stays_there() -> None:
    x, decay = torch.tensor([1.0, 1.0, torch.nan, 1.0, torch.inf]), torch.tensor([0.5, 0.0, 0.5, 0.0, 0.0])
    assert discounted_sums(x, decay).tolist()[:2] == [1.5, 1.0]
    assert discounted_sums(x, decay)[3] == 1


class Own(Estimator):
    """Whatever a test makes of the reward."""

    def __init__(self, make: Callable[[Tensor], Any]):
        self.make = make

    def __call__(self, frames: Trajectories) -> Any:
        return self.make(frames.reward)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda r: Estimate(r.mean(), r), r"test_advantages.Own must return .* of the shape \[200\] of reward"),
        (lambda r: (r, r), "must return a datamodules.advantages.Estimate"),
        (lambda r: Estimate(r.tolist(), r), "must return a datamodules.advantages.Estimate"),
        (lambda r: Estimate(r, r / 0), "not finite, of trajectories that are"),
    ],
)
def test_what_an_estimator_of_ones_own_may_not_say(make: Callable[[Tensor], Any], said: str) -> None:
    frames, _ = trajectories(0)
    with pytest.raises(UserError, match=said):
        estimated(Own(make), frames)


def test_what_an_estimator_of_ones_own_says_is_of_our_precision_and_asks_for_ratios() -> None:
    frames = Trajectories(*(x.float() if x.is_floating_point() else x for x in trajectories(0)[0]))
    found = estimated(Own(lambda r: Estimate(r.double(), r.half())), frames)
    assert found.advantage.dtype == found.target.dtype == torch.float32
    assert torch.equal(found.advantage, frames.reward)
    assert Own.needs_log_ratio
