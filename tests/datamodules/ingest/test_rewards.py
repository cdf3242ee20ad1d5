"""Rewards of the log, of labels, of success, and of a user's own function."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.ingest import IngestOptions
from datamodules.ingest.rewards import success
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.log import append_label, read_log
from robots.review.export import export
from tests.datamodules.ingest.builders import drop, store_of, write_log

Columns = Mapping[str, np.ndarray]


def distance(columns: Columns, success: bool | None, scale: float = 1.0) -> np.ndarray:
    return -scale * np.linalg.norm(columns["next_observation"] - columns["observation"], axis=1)


class Distance:
    def __init__(self, scale: float):
        self.scale = scale

    def __call__(self, columns: Columns, success: bool | None) -> np.ndarray:
        return distance(columns, success, self.scale)


def judge(log: Path, verdicts: dict[int, bool]) -> None:
    for episode, verdict in verdicts.items():
        append_label(log, read_log(log).header.session, episode, success=verdict, reward=None)


def test_success_is_one_on_the_last_step(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [token], (3, 4, 5))
    with pytest.raises(UserError, match=r"a\.mcap, episode 0: nobody said whether it succeeded"):
        store_of(log, cache=tmp_path, policies=folder, reward=success)
    judged = store_of(log, cache=tmp_path, policies=folder, reward=success, bad_episodes="skip")
    assert judged.frames["next", "reward"].tolist() == [0, 0, 0, 1] + [0] * 5
    assert [where for where, _ in judged.facts.skipped] == [f"{log}, episode 0"]
    assert [each.episodes for each in judged.facts.sources] == [2]
    judge(log, {0: True, 1: False})
    export([log], "lerobot", tmp_path / "lerobot")
    for source in (log, tmp_path / "lerobot"):
        store = store_of(source, cache=tmp_path, policies=folder, reward=success)
        assert store.frames["next", "reward"].tolist() == [0, 0, 1] + [0] * 9
        assert (store.facts.judged, store.facts.successes) == (3, 1)


def test_success_of_an_episode_with_a_gap_is_given_once(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = drop(tmp_path / "a.mcap", token, declared=True)
    export([log], "minari", tmp_path / "minari")
    for source in (log, tmp_path / "minari"):
        store = store_of(source, cache=tmp_path, policies=folder, reward=success)
        assert store.frames["next", "reward"].tolist() == [0] * 7 + [1]


def test_labels_add_to_the_last_step(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [token], (3, 4))
    before = store_of(log, cache=tmp_path, policies=folder)
    append_label(log, read_log(log).header.session, 0, success=None, reward=2.0)
    after = store_of(log, cache=tmp_path, policies=folder)
    assert after.path != before.path
    added = after.frames["next", "reward"] - before.frames["next", "reward"]
    np.testing.assert_allclose(added, [0, 0, 2, 0, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("how", ["stopped", "torn"])
def test_labels_of_a_broken_episode_add_to_the_last_step_that_is_kept(
    how: str, token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "a.mcap", [token], (3, 9), ended=False if how == "stopped" else None)
    if how == "torn":
        log.write_bytes(log.read_bytes()[:-40])
    kept = [episode.transitions()["step"].tolist() for episode in read_log(log).episodes]
    assert kept[-1] == list(range(8))
    before = store_of(log, cache=tmp_path / "cache", policies=folder)
    session = read_log(log).header.session
    append_label(log, session, 1, success=False, reward=None)
    append_label(log, session, 1, success=None, reward=-10.0)
    for kind in ("lerobot", "minari"):
        export([log], kind, tmp_path / kind)
    for source in (log, tmp_path / "lerobot", tmp_path / "minari"):
        after = store_of(source, cache=tmp_path / "cache", policies=folder)
        added = after.frames["next", "reward"] - before.frames["next", "reward"]
        np.testing.assert_allclose(added, [0] * (len(added) - 1) + [-10], atol=1e-5)
        assert (after.facts.judged, after.facts.successes) == (1, 0)
        assert after.frames["next", "truncated"][-1]


def test_functions_of_ones_own(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [token], (3, 4))
    stores = [
        store_of(log, cache=tmp_path, policies=folder, reward=reward)
        for reward in (
            distance,
            partial(distance, scale=2.0),
            Distance(2.0),
            Distance(3.0),
            lambda c, s: c["reward"] * 0,
        )
    ]
    assert len({store.path for store in stores}) == 5
    frames = stores[0].frames
    wanted = -np.linalg.norm(frames["next", "observation"] - frames["observation"], axis=1)
    for store, scale in zip(stores, (1, 2, 2, 3, 0), strict=True):
        np.testing.assert_allclose(store.frames["next", "reward"], scale * wanted, rtol=1e-6)


def test_what_a_reward_function_may_not_give(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [token], (3, 4))
    cases = [
        (lambda c, s: np.zeros(3), r"episode 1: the reward <lambda> gave float64 of shape \[3\]"),
        (lambda c, s: np.array(["x"] * len(c["step"])), "one number a step"),
        (lambda c, s: np.log(c["step"]), "episode 0: the reward <lambda> is not finite at step 0"),
        (lambda c, s: [[1], [2, 3]], "episode 0: the reward <lambda> gave what is no array of numbers: setting"),
        (lambda c, s: torch.ones(len(c["step"]), requires_grad=True), "episode 0: .*no array of numbers: Can't call"),
    ]
    for reward, reason in cases:
        with pytest.raises(UserError, match=reason), np.errstate(divide="ignore"):
            store_of(log, cache=tmp_path, policies=folder, reward=reward)
    with pytest.raises(ValueError, match="read-only"):
        store_of(log, cache=tmp_path, policies=folder, reward=_alters)


def test_a_reward_function_that_raises_is_told_with_its_line_and_the_episode(
    token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "a.mcap", [token], (3, 4))
    reason = r"a\.mcap, episode 1: the reward raised ZeroDivisionError in _divides \(.*\.py:\d"
    for skip in ("refuse", "skip"):  # its fault is not the episode's
        with pytest.raises(UserError, match=reason):
            store_of(log, cache=tmp_path, policies=folder, reward=_divides, bad_episodes=skip)
    with pytest.raises(UserError, match=r"episode 0: the reward raised FileNotFoundError in _opens \(.*goals\.npy"):
        store_of(log, cache=tmp_path, policies=folder, reward=_opens)


def _divides(columns: Columns, success: bool | None) -> np.ndarray:
    return columns["reward"] * (1 // (4 - len(columns["step"])))


def _opens(columns: Columns, success: bool | None) -> np.ndarray:
    return np.asarray(np.load("goals.npy"))


def _alters(columns: Columns, success: bool | None) -> np.ndarray:
    columns["observation"][:] = 0
    return columns["reward"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"audit": 1.5}, r"audit must be a share .* got 1\.5"),
        ({"audit": float("nan")}, "audit must be a share"),
        ({"bad_episodes": "keep"}, "refuse or skip, got 'keep'"),
        ({"reward": "sparse"}, "must be a function"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_options_are_checked(options: dict, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        IngestOptions(**options)


def test_a_reward_that_cannot_be_called_is_refused_before_anything_is_read() -> None:
    def of_columns(columns: Columns) -> np.ndarray:
        return columns["reward"]

    with pytest.raises(UserError, match=r"of_columns cannot be called with \(columns, success\): too many positional"):
        IngestOptions(reward=of_columns)
    IngestOptions(reward=lambda columns, success=None: columns["reward"])
