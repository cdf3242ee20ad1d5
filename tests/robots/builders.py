"""Rows whose every value follows from their index, so that what is read back can be compared with what was written."""

import time
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from robots.log import TIMES, Log, Step
from robots.safety import Limits
from robots.spec import RobotSpec

EPISODE = 50  # steps of an episode in `step_row`


def make_spec(**changes: Any) -> RobotSpec:
    """A robot of 5 sensors and 3 actions at 80 Hz, with limits that bite."""
    values: dict[str, Any] = {
        "name": "fake",
        "observation_names": tuple(f"s{i}" for i in range(5)),
        "observation_units": ("m",) * 5,
        "observation_low": (-10.0,) * 5,
        "observation_high": (10.0,) * 5,
        "action_names": ("x", "y", "grip"),
        "action_units": ("1",) * 3,
        "action_low": (-1.0, -1.0, 0.0),
        "action_high": (1.0, 1.0, 1.0),
        "action_rate": (4.0, 4.0, 8.0),
        "action_acceleration": (40.0, 40.0, 80.0),
        "action_hold": (0.0, 0.0, 0.0),
        "control_rate_hz": 80.0,
    }
    return RobotSpec(**{**values, **changes})


def step_row(index: int, observations: int = 39, actions: int = 4) -> Step:
    """Row `index` of a log that has no gaps."""
    rng = np.random.default_rng(index)
    return Step(
        episode=index // EPISODE,
        step=index % EPISODE,
        wall_ns=time.time_ns(),
        monotonic_ns=time.monotonic_ns(),
        observation=(rng.standard_normal(observations) * 10.0 ** rng.integers(-9, 9)).astype(np.float32),
        latent=rng.integers(0, 256, actions),
        action=rng.uniform(-1, 1, actions).astype(np.float32),
        sent_action=rng.uniform(-1, 1, actions),
        log_prob=-rng.exponential(3, actions).astype(np.float32),
        policy_version=index // 1000,
        valid=bool(index % 7),
        reward=float(np.float32(rng.random())),
        truncated=index % EPISODE == EPISODE - 1,
        gate=("rate",) if index % 11 == 0 else (),
        timing_us=tuple(range(len(TIMES))),
        source="policy" if index % 7 else ("person", "hold")[index % 2],
        proposed_action=None if index % 7 else rng.uniform(-1, 1, actions).astype(np.float32),
        privileged=rng.standard_normal(3).astype(np.float32),
    )


@cache
def expected_columns(count: int, observations: int, actions: int) -> dict[str, np.ndarray]:
    """What a log of rows 0 to `count` must read as, without the times."""
    rows = [step_row(index, observations, actions) for index in range(count)]
    known = [field.name for field in fields(Step) if field.name not in ("wall_ns", "monotonic_ns", "gate")]
    for row in rows:
        row.proposed_action = row.action if row.proposed_action is None else row.proposed_action
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in known}
    return columns | {"source": np.array([{"policy": 0, "person": 1, "hold": 2}[row.source] for row in rows], np.int8)}


def assert_prefix(log: Log) -> int:
    """The log holds rows 0, 1, 2, … to the last bit, and nothing else; how many."""
    total = 0
    for episode in log.episodes:
        first = episode.columns
        expected = expected_columns(20 * EPISODE, first["observation"].shape[1], first["action"].shape[1])
        stop = total + len(episode)
        assert (expected["episode"][total:stop] == episode.number).all()
        for name in set(expected) - {"episode"}:
            np.testing.assert_array_equal(episode[name], expected[name][total:stop], err_msg=name)
        assert episode.gate == {index - total: ["rate"] for index in range(total, stop) if index % 11 == 0}
        total = stop
    return total


def assert_no_limit_violated(limits: Limits, commands: np.ndarray) -> None:
    """commands [T, D] in the order they were sent, from rest."""
    steps = np.diff(commands, axis=0, prepend=commands[:1])
    changes = np.diff(steps, axis=0, prepend=np.zeros((1, commands.shape[1])))
    assert np.isfinite(commands).all()
    assert (commands >= limits.low).all()
    assert (commands <= limits.high).all()
    assert (np.abs(steps) <= limits.rate * (1 + 1e-9) + 1e-12).all()
    assert (np.abs(changes) <= limits.acceleration * (1 + 1e-9) + 1e-12).all()
