"""The gate: what may never pass, what is merely reduced, and that no sequence of targets breaks a limit."""

import json
import math
import re
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gipo.common.errors import UserError
from robots.safety import (
    FLOAT32_MAX,
    Limits,
    Motion,
    _brakeable,
    advance,
    check_freshness,
    check_latent,
    check_observation,
    check_outcome,
    check_privileged,
    check_sent,
    gate,
    held_by,
    kept_by,
    start,
)
from robots.spec import RobotSpec
from tests.robots.builders import assert_no_limit_violated, make_spec

SPEC = make_spec()
LIMITS = Limits.of(SPEC)
HOLD = np.array(SPEC.action_hold)


@pytest.mark.parametrize(
    ("values", "before", "reason"),
    [
        (None, None, ""),
        (np.ones(2, np.float32), np.ones(2), ""),
        (None, np.ones(2), "of some observations and not of others"),
        (np.ones(2), None, "of some observations and not of others"),
        ([1.0], [1.0], "neither a float vector nor always None"),
        (np.ones((2, 2)), np.ones((2, 2)), "neither a float vector"),
        (np.ones(2, int), np.ones(2), "neither a float vector"),
        (np.ones(3), np.ones(2), "has 3 numbers, and had 2 before"),
        (np.array([1.0, np.nan]), np.ones(2), "is not finite"),
    ],
)
def test_what_is_privileged_is_said_throughout_and_finite(values: Any, before: Any, reason: str) -> None:
    found = check_privileged(values, before)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("reward", "success", "terminated", "reason"),
    [
        (1, None, False, ""),
        (np.float32(0.5), np.True_, np.False_, ""),
        (-FLOAT32_MAX, False, True, ""),
        (3.5e38, None, False, "the reward is 3.5e+38, no finite float32"),
        (10**400, None, False, "no finite float32"),
        (0.0, "", False, "success is ''"),
        (0.0, 2, False, "success is 2"),
        (0.0, None, None, "terminated is None"),
        (0.0, None, np.array([True, False]), "terminated is array([ True, False])"),
    ],
)
def test_what_came_of_a_command_is_a_number_and_two_truths(
    reward: Any, success: Any, terminated: Any, reason: str
) -> None:
    found = check_outcome(reward, success, terminated)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("latent", "reason"),
    [
        (np.zeros(3, np.int64), ""),
        (np.zeros(3, np.float32), ""),
        (np.zeros(2, np.int64), "not 3 int64 tokens or float32 numbers"),
        (np.zeros((3, 1), np.float32), "not 3 int64 tokens"),
        (np.zeros(3), "not 3 int64 tokens"),
        (np.zeros(3, np.int32), "not 3 int64 tokens"),
        ([0, 0, 0], "not 3 int64 tokens"),
        (np.array([0, np.nan, 0], np.float32), "latent is not finite: [0.0, nan, 0.0]"),
    ],
)
def test_a_latent_is_tokens_or_finite_numbers(latent: Any, reason: str) -> None:
    found = check_latent(latent, 3)
    assert reason in found
    assert bool(found) == bool(reason)


def test_what_a_driver_says_it_sent_is_a_command_of_this_robot() -> None:
    assert check_sent(SPEC, LIMITS, np.array([2.0, -2.0, 1.5])) == ""
    assert check_sent(SPEC, LIMITS, np.array([0.0, 0.0, 1.6])) == "sent action 'grip' is 1.6, far outside of 0 to 1"
    assert check_sent(SPEC, LIMITS, np.array([0.0, math.nan, 0.0])) == "sent action 'y' is nan"


def test_a_measured_position_is_held_as_it_was_and_a_number_as_it_is_said_now() -> None:
    spec = replace(SPEC, action_hold=("measured", 0.0, "measured"))
    begun, now = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    assert kept_by(spec, begun, now).tolist() == [0.1, 0.6, 0.3]
    with pytest.raises(UserError, match="hold 'x' is nan"):
        kept_by(spec, begun, np.array([math.nan, 0.6, 0.7]))
    assert held_by(spec, now) is held_by(SPEC, now) is now
    assert held_by(SPEC, None).tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="the spec holds 'x' where it is measured"):
        held_by(spec, None)


def decide(target: Any, state: Motion | None = None, engaged: float = 1.0, spec: RobotSpec = SPEC) -> Any:
    return gate(spec, Limits.of(spec), state or start(spec, None), target, HOLD, engaged)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ([math.nan, 0, 0], "'x' is nan"),
        ([0, math.inf, 0], "'y' is inf"),
        ([0, 0, -math.inf], "'grip' is -inf"),
        ([1e38, 0, 0], "far outside"),
        ([0, -1e38, 0], "far outside"),
        ([0, 0], "shape (2,)"),
        ([[0, 0, 0]], "shape (1, 3)"),
    ],
)
def test_what_no_policy_says_stops(target: Any, reason: str) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        decide(np.array(target, float))


@pytest.mark.parametrize("dtype", [np.int64, np.float16, bool, object, "U3", np.complex128])
def test_wrong_dtypes_stop(dtype: Any) -> None:
    with pytest.raises(UserError, match="dtype"):
        decide(np.zeros(3).astype(dtype))


@pytest.mark.parametrize("target", [None, [0.0, 0.0, 0.0], "forward", 0.0])
def test_what_is_no_array_stops(target: Any) -> None:
    with pytest.raises(UserError, match="not an array"):
        decide(target)


@pytest.mark.parametrize(
    ("dimension", "most", "beyond"), [(0, 2.0, 2.01), (0, -2.0, -2.01), (2, 1.5, 1.51), (2, -0.5, -0.51)]
)
def test_half_a_range_outside_of_a_bound_is_an_excess_and_more_a_fault(
    dimension: int, most: float, beyond: float
) -> None:
    target = np.zeros(3)
    target[dimension] = most
    assert "bounds" in decide(target)[1]
    target[dimension] = beyond
    with pytest.raises(UserError, match="far outside"):
        decide(target)


def test_a_command_within_every_limit_passes_to_the_last_bit() -> None:
    target = np.array([0.001, -0.0013, 0.0], np.float32)
    command, changed = decide(target)
    assert changed == ()
    np.testing.assert_array_equal(command, target.astype(float))
    free = replace(SPEC, action_rate=(None,) * 3, action_acceleration=(None,) * 3)
    state = Motion(np.full(3, 0.9), np.zeros(3))  # 0.9 + (0.1 - 0.9) is 0.09999999999999998
    assert decide(np.full(3, 0.1), state, spec=free)[0].tolist() == [0.1] * 3


def test_what_holds_nothing_is_no_command_while_engaging() -> None:
    with pytest.raises(UserError, match="hold 'y' is nan"):
        gate(SPEC, LIMITS, start(SPEC, None), np.zeros(3), np.array([0.0, math.nan, 0.0]), 0.5)


def test_each_reduction_names_itself() -> None:
    assert decide(np.array([0.0, 0.0, 1.2]))[1] == ("bounds", "rate", "acceleration")
    assert decide(np.array([0.0, 0.0, 1.0]))[1] == ("rate", "acceleration")
    assert decide(np.array([0.02, 0.0, 0.0]))[1] == ("acceleration",)
    assert decide(np.array([0.001, 0.0, 0.0]), engaged=0.5)[1] == ("engage",)


def test_a_bound_at_the_precision_of_a_policy_is_no_excess() -> None:
    """Float32 has no .1: a policy at its bound asks for .10000000149, and .1 is sent."""
    spec = replace(SPEC, action_high=(0.1,) * 3, action_rate=(None,) * 3, action_acceleration=(None,) * 3)
    command, changed = decide(np.full(3, 0.1, np.float32), spec=spec)
    assert (changed, command.tolist()) == ((), [0.1] * 3)
    assert decide(np.full(3, 0.1000001, np.float32), spec=spec)[1] == ("bounds",)


def test_soft_engage_blends_from_where_the_robot_stands() -> None:
    spec = replace(SPEC, action_rate=(None,) * 3, action_acceleration=(None,) * 3)
    hold, target = np.array([0.5, -0.5, 0.2]), np.array([-0.5, 0.5, 0.6])
    for engaged in (0.0, 0.25, 1.0):
        command, _ = gate(spec, Limits.of(spec), start(spec, hold), target, hold, engaged)
        np.testing.assert_allclose(command, hold + engaged * (target - hold))


def test_soft_engage_blends_with_the_hold_wherever_the_last_command_was() -> None:
    spec = replace(SPEC, action_rate=(None,) * 3, action_acceleration=(None,) * 3)
    state = Motion(np.array([0.3, 0.3, 0.3]), np.zeros(3))
    command, _ = gate(spec, Limits.of(spec), state, np.full(3, 1.0), np.array([0.0, 0.5, 0.2]), 0.25)
    np.testing.assert_allclose(command, [0.25, 0.625, 0.4])


def test_a_hold_outside_of_the_bounds_is_no_command_while_engaging() -> None:
    spec = replace(SPEC, action_rate=(None,) * 3, action_acceleration=(None,) * 3)
    hold = np.array([1.2, -1.2, 0.5])
    command, _ = gate(spec, Limits.of(spec), start(spec, hold), np.array([1.0, -1.0, 0.5]), hold, 0.25)
    np.testing.assert_array_equal(command, [1.0, -1.0, 0.5])


def test_the_first_command_continues_from_where_the_robot_stands() -> None:
    hold = np.array([0.9, -0.9, 0.5])
    command, _ = gate(SPEC, LIMITS, start(SPEC, hold), np.array([-1.0, 1.0, 0.0]), hold, 1.0)
    assert (np.abs(command - hold) <= LIMITS.acceleration + 1e-12).all()


@pytest.mark.parametrize("hold", [[math.nan, 0, 0], [5.0, 0, 0], [0, 0]])
def test_a_robot_that_stands_nowhere_is_not_engaged(hold: list[float]) -> None:
    with pytest.raises(UserError, match="cannot be engaged"):
        start(SPEC, np.array(hold))


@pytest.mark.parametrize(
    ("outside", "limits"),
    [
        (0.06, {"action_rate": (4.0,) * 3, "action_acceleration": (None,) * 3}),  # a command moves it by 4/80
        (0.01, {"action_rate": (None,) * 3, "action_acceleration": (40.0,) * 3}),  # or, from rest, by 40/80²
    ],
)
def test_the_way_back_into_the_bounds_is_no_jump(outside: float, limits: dict[str, Any]) -> None:
    spec = replace(SPEC, **limits)
    largest = np.minimum(Limits.of(spec).rate, Limits.of(spec).acceleration)
    for sign in (-1.0, 1.0):
        hold = np.array([sign * (1 + outside), 0.0, 0.5])
        said = rf"cannot be engaged: hold 'x' is {hold[0]:g}, outside of -1 to 1 by more than one command may move it"
        with pytest.raises(UserError, match=said):
            start(spec, hold)
        hold[0] = sign * (1 + 0.5 * outside)
        for target in (sign, 0.0, -sign):
            command, _ = gate(spec, Limits.of(spec), start(spec, hold), np.array([target, 0.0, 0.5]), hold, 1.0)
            assert (np.abs(command - hold) <= largest + 1e-12).all()
            assert abs(command[0]) <= 1
    free = replace(SPEC, action_rate=(None,) * 3, action_acceleration=(None,) * 3)
    assert start(free, np.array([1.06, 0.0, 0.5])).command.tolist() == [1.06, 0.0, 0.5]
    with pytest.raises(UserError, match="cannot be engaged: hold 'x' is 5, far outside of -1 to 1; move it back"):
        start(free, np.array([5.0, 0.0, 0.5]))
    half = replace(free, action_rate=(40.0,) * 3)  # a command moves it by 40/80, and no more is needed
    assert start(half, np.array([1.5, 0.0, 0.5])).command.tolist() == [1.5, 0.0, 0.5]


def run_targets(spec: RobotSpec, targets: np.ndarray, ramp: int = 0) -> np.ndarray:
    """Commands [1 + T, D] the gate lets pass, the rest before them included."""
    limits, state = Limits.of(spec), start(spec, None)
    commands = [state.command]
    for index, target in enumerate(targets):
        with suppress(UserError):
            command, _ = gate(spec, limits, state, target, HOLD, min(1.0, (index + 1) / ramp) if ramp else 1.0)
            state = advance(state, command, command)
            commands.append(command)
    return np.array(commands)


def random_targets(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count, 3] of every kind: inside, on and beyond the bounds, jumps, sweeps, and what is no number."""
    targets = rng.uniform(-1.4, 1.4, (count, 3))
    sweeps = np.sin(np.arange(count)[:, None] * rng.uniform(0.001, 2.0, 3)) * 1.3
    targets = np.where(rng.random((count, 1)) < 0.4, sweeps, targets)
    targets = np.where(rng.random((count, 1)) < 0.1, rng.choice([-1.0, 1.0], (count, 3)), targets)
    wild = rng.choice([math.nan, math.inf, -math.inf, 1e38, -1e300, 0.0], (count, 3))
    return np.where(rng.random((count, 1)) < 0.05, wild, targets)


def random_spec(rng: np.random.Generator) -> RobotSpec:
    def limit(scale: float) -> tuple[float | None, ...]:
        values = 10.0 ** rng.uniform(-2, 3, 3) * scale
        return tuple(None if rng.random() < 0.15 else float(value) for value in values)

    return replace(SPEC, action_rate=limit(1), action_acceleration=limit(10))


def campaign(targets: int) -> None:
    rng = np.random.default_rng(7)
    for _ in range(targets // 1000):
        spec = random_spec(rng)
        commands = run_targets(spec, random_targets(rng, 1000), ramp=int(rng.integers(0, 50)))
        assert_no_limit_violated(Limits.of(spec), commands)
        assert len(commands) > 400


def test_random_targets_break_no_limit() -> None:
    campaign(10_000)


@pytest.mark.campaign
def test_100_000_random_targets_break_no_limit() -> None:
    campaign(100_000)


@settings(max_examples=60, deadline=None)
@given(
    targets=st.lists(st.tuples(*[st.floats(width=32)] * 3), min_size=1, max_size=60),
    rate=st.floats(0.01, 1e4),
    acceleration=st.floats(0.01, 1e6),
)
def test_any_floats_break_no_limit(targets: list[tuple[float, ...]], rate: float, acceleration: float) -> None:
    spec = replace(SPEC, action_rate=(rate,) * 3, action_acceleration=(acceleration,) * 3)
    assert_no_limit_violated(Limits.of(spec), run_targets(spec, np.array(targets)))


def test_targets_are_reached_not_only_approached() -> None:
    spec = replace(SPEC, action_rate=(2.0,) * 3, action_acceleration=(20.0,) * 3)
    commands = run_targets(spec, np.tile([1.0, -1.0, 1.0], (300, 1)))
    np.testing.assert_allclose(commands[-1], [1.0, -1.0, 1.0], atol=1e-9)


def test_a_step_leaves_room_to_brake() -> None:
    """0.0625 is 0.025 + 0.01875 + 0.0125 + 0.00625, and 0.04625 + 0.01625; without a limit a step takes all of it."""
    room = np.array([0.0625, 0.0625, 3.0, 0.0, -1.0])
    found = _brakeable(room, np.array([0.00625, 0.03, np.inf, 0.1, 0.1]))
    assert found == pytest.approx([0.025, 0.04625, 3.0, 0.0, 0.0])


def test_what_is_too_fast_to_stop_at_a_bound_brakes_as_hard_as_it_may() -> None:
    """A step of 0.05 may change by 40/80² = 0.00625 a tick; from 0.0625 before the bound 0.025 would be the most."""
    for sign in (1.0, -1.0):
        state = Motion(np.array([0.9375 * sign, 0.0, 0.5]), np.array([0.05 * sign, 0.0, 0.0]))
        command, changed = decide(np.array([0.96875 * sign, 0.0, 0.5]), state)
        assert command.tolist() == pytest.approx([sign * (0.9375 + 0.04375), 0.0, 0.5])
        assert changed == ("acceleration",)


def test_a_driver_that_sends_something_else_is_followed() -> None:
    state = advance(start(SPEC, None), np.array([0.1, 0.0, 0.5]), np.array([0.9, 0.0, 0.5]))
    command, _ = gate(SPEC, LIMITS, state, np.array([1.0, 0.0, 0.5]), HOLD, 1.0)
    assert (command <= LIMITS.high).all()


def test_what_a_driver_corrects_is_no_velocity() -> None:
    """A follower holds its goal near the arm; an arm that is pushed away comes back, within its limits, at once."""
    spec = make_spec(
        action_names=("joint",), action_units=("deg",), action_low=(-100.0,), action_high=(100.0,),
        action_rate=(30.0,), action_acceleration=(90.0,), action_hold=("measured",), control_rate_hz=30.0,
    )  # fmt: skip
    limits, state, arm = Limits.of(spec), start(spec, np.zeros(1)), np.zeros(1)
    steps, places = [], []
    for tick in range(400):
        arm = arm - 8.0 * (tick == 100)
        command, _ = gate(spec, limits, state, np.array([20.0], np.float32), arm, 1.0)
        steps.append(abs(float(command[0] - state.command[0])))
        arm = np.clip(command, arm - 5, arm + 5)
        state = advance(state, command, arm)
        places.append(float(arm[0]))
    assert max(steps) <= limits.rate[0] + 1e-9
    assert min(places[100:]) > places[99] - 8  # never farther away than it was pushed
    assert places[-1] == pytest.approx(20)


def test_the_velocity_is_as_much_of_the_commanded_way_as_was_sent() -> None:
    """Commands of +.2 and −.2; sent are half of it, twice as much, and the other way."""
    state, command = Motion(np.zeros(6), np.zeros(6)), np.array([0.2, 0.2, 0.2, -0.2, -0.2, -0.2])
    sent = np.array([0.1, 0.4, -0.1, -0.1, -0.4, 0.1])
    found = advance(state, command, sent)
    np.testing.assert_array_equal(found.command, sent)
    np.testing.assert_array_equal(found.velocity, [0.1, 0.2, 0.0, -0.1, -0.2, 0.0])


@pytest.mark.parametrize("push", [24.0, 30.0, 60.0, -60.0])
def test_an_arm_that_is_pushed_beyond_a_bound_comes_back_within_its_limits(push: float) -> None:
    """A follower that caps how far its goal lies from the arm, at 95 of 100; a person leans on it at tick 15."""
    spec = make_spec(
        action_names=("joint",), action_units=("deg",), action_low=(-100.0,), action_high=(100.0,),
        action_rate=(30.0,), action_acceleration=(90.0,), action_hold=("measured",), control_rate_hz=30.0,
    )  # fmt: skip
    goal = math.copysign(95.0, push)
    limits, arm = Limits.of(spec), np.array([goal])
    state = start(spec, arm)
    commands, before = [], []
    for tick in range(300):
        arm = arm + push * (tick == 15)
        command, _ = gate(spec, limits, state, np.array([goal], np.float32), arm, 1.0)
        commands.append(float(command[0]))
        before.append(float(state.command[0]))
        arm = np.clip(command, arm - 20, arm + 20)
        state = advance(state, command, arm)
    steps = np.array(commands) - before
    assert np.abs(steps).max() <= limits.rate[0] + 1e-9
    assert np.abs(np.diff(steps)).max() <= limits.acceleration[0] + 1e-9
    outside = np.abs(before) > 100
    assert outside.any() == (abs(push) > 25)
    assert (np.abs(commands) <= np.maximum(np.abs(before), 100)).all()  # never farther out than it was pushed
    assert commands[-1] == pytest.approx(goal)
    braking = limits.rate[0] ** 2 / (2 * limits.acceleration[0])
    assert (np.array(commands) * np.sign(push)).min() >= 95 - braking  # no farther past its goal than braking takes


@settings(max_examples=100, deadline=None)
@given(
    ticks=st.lists(st.tuples(st.floats(-1, 1), st.none() | st.floats(-1.9, 1.9)), min_size=1, max_size=60),
    rate=st.floats(0.01, 1e4),
    acceleration=st.floats(0.01, 1e6),
)
def test_whatever_a_driver_sends_the_next_command_is_within_rate(
    ticks: list[tuple[float, float | None]], rate: float, acceleration: float
) -> None:
    """Targets, and where a driver says it went in place of the command: no step is longer, none leads farther out."""
    spec = replace(SPEC, action_rate=(rate,) * 3, action_acceleration=(acceleration,) * 3)
    limits, state = Limits.of(spec), start(spec, None)
    for target, sent in ticks:
        command, _ = gate(spec, limits, state, np.array([target, -target, 0.5]), HOLD, 1.0)
        assert (np.abs(command - state.command) <= limits.rate * (1 + 1e-9) + 1e-12).all()
        assert (command >= np.minimum(limits.low, state.command)).all()
        assert (command <= np.maximum(limits.high, state.command)).all()
        state = advance(state, command, command if sent is None else np.array([sent, -sent, 0.5]))


PERIOD = 12_500_000


@pytest.mark.parametrize(
    ("measured", "previous", "now", "reason"),
    [
        (100, 50, 100, ""),
        (100, 100, 100 + PERIOD, ""),
        (100, 100, 100 + PERIOD * 3 // 2, ""),
        (100, 100, 101 + PERIOD * 3 // 2, "ms old"),
        (100, 100, 100 + 2 * PERIOD, "ms old"),
        (10**18, 100, 200, "future"),
        (100, 200, 300, "older than the one before"),
        (3_000_000, 0, 1_000_000, "from 2.000 ms in the future"),
        (5_000_000, 8_000_000, 9_000_000, "is 3.000 ms older than the one before it"),
        (1_000_000, 0, 21_000_000, "is 20.000 ms old, more than 18.750 ms"),
        (1.5, 0, 10, "no whole number"),
        (True, 0, 10, "no whole number"),
        (None, 0, 10, "no whole number"),
    ],
)
def test_freshness(measured: Any, previous: int, now: int, reason: str) -> None:
    fault = check_freshness(measured, previous, now, PERIOD * 3 // 2)
    assert reason in fault
    assert bool(fault) == bool(reason)


def test_observations() -> None:
    good = np.zeros(SPEC.observation_size)
    assert check_observation(SPEC, LIMITS, good) == ""
    for value in (math.nan, math.inf, 1e38, 11.0):
        bad = good.copy()
        bad[1] = value
        assert "'s1'" in check_observation(SPEC, LIMITS, bad)
    assert "shape" in check_observation(SPEC, LIMITS, np.zeros(3))
    spec = replace(SPEC, observation_high=(10.0, 2.5, 10.0, 10.0, 10.0))
    said = "observation 's1' is 2.6, no reading between -10 and 2.5"
    assert check_observation(spec, Limits.of(spec), np.array([3.0, 2.6, 3.0, 3.0, 3.0])) == said


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.35, 90.1])
def test_a_reading_of_float32_may_stand_at_a_bound(bound: float) -> None:
    size = SPEC.observation_size
    spec = replace(SPEC, observation_low=(-bound,) * size, observation_high=(bound,) * size)
    limits = Limits.of(spec)
    for at in (np.full(size, bound, np.float32), np.full(size, -bound, np.float32)):
        assert check_observation(spec, limits, at) == check_observation(spec, limits, at.astype(float)) == ""
        assert "no reading" in check_observation(spec, limits, np.nextafter(at, 2 * at))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("action_rate", (math.nan, 1.0, 1.0)),
        ("action_rate", (-1.0, 1.0, 1.0)),
        ("action_acceleration", (0.0, 1.0, 1.0)),
        ("action_acceleration", (1.0, 1.0)),
        ("action_low", (1.0, -1.0, 0.0)),
        ("action_high", (math.inf, 1.0, 1.0)),
        ("observation_low", (math.nan,) * 5),
        ("action_hold", (9.0, 0.0, 0.0)),
        ("action_hold", (True, 0.0, 0.0)),
        ("action_hold", ("present", 0.0, 0.0)),
        ("action_hold", (None, 0.0, 0.0)),
        ("control_rate_hz", 0.0),
        ("control_rate_hz", math.nan),
        ("action_names", ("x", "x", "grip")),
        ("action_units", ("1",)),
        ("name", "../up"),
    ],
)
def test_limits_that_make_no_sense_are_refused_at_load(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=key.split("_")[-1]):
        replace(SPEC, **{key: value})


def test_spec_survives_json_to_the_last_bit() -> None:
    spec = replace(SPEC, control_rate_hz=79.99999999999999, action_high=(0.1 + 0.2, 1 / 3, 1.0))
    assert RobotSpec.from_json(spec.to_json()) == spec


def test_a_spec_may_say_what_a_manifest_may_not() -> None:
    """A bound that float32 cannot hold, a unit without a name, a long name: logs that say them are read."""
    spec = make_spec(observation_high=(1e300,) * 5, observation_units=("",) * 5, action_names=("x" * 200, "y", "grip"))
    assert RobotSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", "[" * 10_000, json.dumps({**asdict(SPEC), "more": 1})])
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        RobotSpec.from_json(text)
