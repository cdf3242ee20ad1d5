"""Returns and successes of training episodes across segments."""

import pytest
import torch
from tensordict import TensorDict

from datamodules.collect.episode_returns import EpisodeTracker


def frames(rows: list[tuple[int, float, bool, bool]], knows_success: bool = True) -> TensorDict:
    """Transitions from (episode, reward, done, success)."""
    episode, reward, done, success = (torch.tensor(column) for column in zip(*rows, strict=True))
    following = {"reward": reward, "done": done} | ({"success": success} if knows_success else {})
    return TensorDict({"episode": episode, "next": following}, batch_size=[len(rows)])


def test_figures_cross_segments_and_interleave() -> None:
    tracker = EpisodeTracker()
    tracker.add(frames([(0, 1.0, False, False), (1, 10.0, False, True), (0, 2.0, False, False)]))
    assert tracker.means() == {}
    tracker.add(frames([(1, 20.0, True, False), (0, 4.0, True, False), (2, 5.0, False, True)]))
    # Episode 1 succeeded on the way, though not at its end.
    assert tracker.means() == {"train/return": pytest.approx((7 + 30) / 2), "train/success": 0.5}


def test_only_the_last_episodes_count() -> None:
    tracker = EpisodeTracker(window=2)
    for number in range(5):
        tracker.add(frames([(number, float(number), True, number == 4)]))
    assert tracker.means() == {"train/return": 3.5, "train/success": 0.5}


def test_a_task_without_success_reports_none() -> None:
    tracker = EpisodeTracker()
    tracker.add(frames([(0, 1.0, True, False)], knows_success=False))
    assert tracker.means() == {"train/return": 1.0}


def test_unfinished_episodes_are_forgotten_when_told() -> None:
    tracker = EpisodeTracker()
    tracker.add(frames([(0, 1.0, False, False)]))
    tracker.drop_unfinished()
    tracker.add(frames([(0, 2.0, True, False)]))
    assert tracker.means()["train/return"] == 2.0


def test_finished_episodes_come_back_from_the_state() -> None:
    one, two = EpisodeTracker(), EpisodeTracker()
    one.add(frames([(0, 1.0, True, True), (1, 3.0, True, False), (2, 9.0, False, False)]))
    two.load_state_dict(one.state_dict())
    assert list(two.finished) == list(one.finished)


def test_episodes_that_were_cut_to_be_out_of_phase_do_not_count() -> None:
    tracker = EpisodeTracker()
    rows = frames([(0, 1.0, False, True), (0, 2.0, True, True), (1, 5.0, True, False), (2, 7.0, False, False)])
    rows["next"]["staggered"] = torch.tensor([False, True, False, False])
    tracker.add(rows)
    assert tracker.means() == {"train/return": 5.0, "train/success": 0.0}
    assert len(tracker.finished) == 1
    # episode 0 is over: its number does not stay among the open ones
    tracker.add(frames([(2, 1.0, True, True)]))
    assert tracker.means() == {"train/return": 6.5, "train/success": 0.5}
    assert tracker._open == {}
