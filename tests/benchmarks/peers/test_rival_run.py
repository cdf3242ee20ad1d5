"""A rival's run is marked and judged as ours is."""

from dataclasses import replace

import pytest

from benchmarks.peers.rival_run import Marks
from benchmarks.training.marks import read
from gipo.commands.studies.fifty import judge
from gipo.commands.studies.fifty.rivals import RIVALS, train

PPO = replace(RIVALS["ppo"], num_envs=1)


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    monkeypatch.setattr(judge.Judge, "__call__", lambda self, act: float(act(self.begin(range(2))).shape == (2, 4)))


def test_iterations_are_marked_and_evaluations_stand_between_them(tmp_path) -> None:
    file = tmp_path / "marks.jsonl"
    train(PPO, "reach-v3", 0, 192, Marks(file, "reach-v3", until=2.0, between=128))
    assert [(mark.what, mark.steps, mark.success) for mark in read(file)] == [
        ("iteration", 64, None), ("iteration", 128, None), ("pause", 128, None), ("resume", 128, 1.0),
        ("iteration", 192, None),
    ]  # fmt: skip


def test_a_run_ends_with_the_success_that_was_asked_for(tmp_path) -> None:
    file = tmp_path / "marks.jsonl"
    train(PPO, "reach-v3", 0, 640, Marks(file, "reach-v3", until=0.9, between=64))
    assert [mark.steps for mark in read(file)] == [64, 64, 64]
