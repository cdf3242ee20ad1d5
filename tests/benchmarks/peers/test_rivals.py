"""A rival's run is marked and judged as ours is."""

from dataclasses import replace

import pytest

from benchmarks.peers import evaluation, rivals
from benchmarks.training.marks import read


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    monkeypatch.setitem(rivals.RIVALS, "ppo", replace(rivals.RIVALS["ppo"], num_envs=1))
    monkeypatch.setattr(
        evaluation.Evaluation, "__call__", lambda self, act: float(act(self.begin(range(2))).shape == (2, 4))
    )


def test_iterations_are_marked_and_evaluations_stand_between_them(tmp_path) -> None:
    rivals.train("ppo", "reach-v3", 0, 192, until=2.0, file=tmp_path / "marks.jsonl", between=128)
    assert [(mark.what, mark.steps, mark.success) for mark in read(tmp_path / "marks.jsonl")] == [
        ("iteration", 64, None), ("iteration", 128, None), ("pause", 128, None), ("resume", 128, 1.0),
        ("iteration", 192, None),
    ]  # fmt: skip


def test_a_run_ends_with_the_success_that_was_asked_for(tmp_path) -> None:
    rivals.train("ppo", "reach-v3", 0, 640, until=0.9, file=tmp_path / "marks.jsonl", between=64)
    assert [mark.steps for mark in read(tmp_path / "marks.jsonl")] == [64, 64, 64]
