"""Decisions are put together from steps: what was executed, what follows, and what is left out."""

import pytest
import torch
from tensordict import TensorDict

from datamodules.replay.decisions import decisions_of
from gipo.common.errors import UserError

H = 3


def steps(place: list[int], **changes: dict[int, int]) -> TensorDict:
    """One episode whose steps have these places in their chunks; `changes` by column and row."""
    count = len(place)
    numbers = torch.arange(count)
    columns = {
        "episode": torch.zeros(count, dtype=torch.int64), "step": numbers.clone(), "chunk_step": torch.tensor(place),
        "policy": torch.zeros(count, dtype=torch.int64), "policy_version": torch.full((count,), 7),
        "success": torch.ones(count, dtype=torch.int8), "instruction": torch.zeros(count, dtype=torch.int64),
        "picture": numbers.clone()[:, None], "next_picture": numbers[:, None] + 1,
        "source": torch.zeros(count, dtype=torch.int8),
        "valid": torch.ones(count, dtype=torch.bool), "terminated": torch.zeros(count, dtype=torch.bool),
        "truncated": numbers == count - 1,
    }  # fmt: skip
    for name, rows in changes.items():
        for row, value in rows.items():
            columns[name][row] = value
    vectors = {name: numbers[:, None].float() for name in ("observation", "action", "log_prob")}
    following = {name: columns.pop(name) for name in ("terminated", "truncated")}
    following |= {
        "picture": columns.pop("next_picture"),
        "reward": numbers.float(),
        "observation": vectors["action"] + 1,
    }
    return TensorDict(columns | vectors | {"latent": numbers[:, None], "next": following}, [count])


def test_chunks_follow_each_other_and_the_last_is_bootstrapped() -> None:
    found, left = decisions_of(steps([0, 1, 2, 0, 1, 2, 0]), H)
    assert left == 0
    assert found["executed"].tolist() == [[True] * 3, [True] * 3, [True, False, False]]
    assert found["latent"][..., 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert found["next", "reward"].tolist() == [[0, 1, 2], [3, 4, 5], [6, 0, 0]]
    assert found["source"].tolist() == [[0, 0, 0], [0, 0, 0], [0, -1, -1]]
    assert found["step"].tolist() == [0, 1, 2]
    assert found["next", "done"].tolist() == [False, False, True]
    assert found["next", "truncated"].tolist() == [False, False, True]
    assert found["observation", "picture"][:, 0].tolist() == [0, 3, 6]
    assert found["next", "observation", "picture"][:, 0].tolist() == [3, 6, 7]
    assert found["observation", "state"][:, 0].tolist() == [0, 3, 6]
    assert found["next", "observation", "state"][:, 0].tolist() == [3, 6, 7]


def test_an_early_decision_ends_the_one_before() -> None:
    found, left = decisions_of(steps([0, 1, 0, 0, 1, 2], terminated={5: True}, truncated={5: False}), H)
    assert left == 0
    assert found["executed"].sum(1).tolist() == [2, 1, 3]
    assert found["next", "done"].tolist() == [False, False, True]
    assert found["next", "terminated"].tolist() == [False, False, True]


def test_a_decision_without_its_image_is_left_out_and_the_one_before_it_bootstrapped() -> None:
    found, left = decisions_of(steps([0, 1, 2] * 3, picture={3: -1}, next_picture={2: -1}), H)
    assert left == 3 + 1, "its own three, and the step before it, behind which there is no image"
    assert found["executed"].sum(1).tolist() == [2, 3]
    assert found["next", "truncated"].tolist() == [True, True]
    assert found["next", "observation", "picture"][:, 0].tolist() == [2, 9]


def test_a_decision_with_no_image_behind_any_of_its_steps_is_left_out() -> None:
    found, left = decisions_of(steps([0, 1, 2, 0, 1], next_picture={3: -1, 4: -1}), H)
    assert left == 2
    assert len(found) == 1
    assert found["next", "truncated"].tolist() == [True], "what follows it is left out"


def test_an_image_behind_a_termination_is_not_needed() -> None:
    lost = {"terminated": {2: True}, "truncated": {2: False}, "next_picture": {2: -1}}
    found, left = decisions_of(steps([0, 1, 2], **lost), H)
    assert (len(found), left) == (1, 0)


def test_steps_behind_a_gap_belong_to_no_decision() -> None:
    gap = steps([0, 1, 2, 0], step={1: 2, 2: 3, 3: 4}, chunk_step={1: 2, 2: 0, 3: 1})
    gap["next", "truncated"][0] = True
    found, left = decisions_of(gap, H)
    assert left == 1, "step 2 of the first chunk, behind the step that is missing"
    assert found["executed"].sum(1).tolist() == [1, 2]
    assert found["next", "truncated"].tolist() == [True, True]


def test_episodes_are_not_linked() -> None:
    both = torch.cat([steps([0, 1, 2]), steps([0, 1]).set("episode", torch.ones(2, dtype=torch.int64))])
    found, _ = decisions_of(both, H)
    assert found["episode"].tolist() == [0, 1]
    assert found["step"].tolist() == [0, 0]
    assert found["next", "done"].all()


def test_logs_without_a_decision_are_refused() -> None:
    with pytest.raises(UserError, match="no decision with the image"):
        decisions_of(steps([1, 2]), H)


def test_where_nobody_decided_on_chunks_every_step_begins_one() -> None:
    found, left = decisions_of(steps([0] * 5, terminated={4: True}, truncated={4: False}), H, recorded=False)
    assert left == 0
    assert found["latent"][..., 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0], [4, 0, 0]]
    assert found["executed"].sum(1).tolist() == [3, 3, 3, 2, 1]
    assert found["next", "terminated"].tolist() == [False, False, True, True, True]
    assert found["next", "truncated"].tolist() == [True, True, False, False, False]
    assert found["next", "observation", "picture"][:, 0].tolist() == [3, 4, 5, 5, 5]


def test_no_window_reaches_over_a_gap_or_beyond_the_images() -> None:
    gap = steps([0] * 5, step={3: 4, 4: 5}, picture={1: -1}, next_picture={4: -1})
    gap["next", "truncated"][2] = True
    found, left = decisions_of(gap, H, recorded=False)
    assert found["executed"].sum(1).tolist() == [3, 1, 1]
    assert found["observation", "picture"][:, 0].tolist() == [0, 2, 3]
    assert left == 1


def test_no_window_needs_an_image_behind_a_termination() -> None:
    lost = {"terminated": {2: True}, "truncated": {2: False}, "next_picture": {2: -1}}
    found, left = decisions_of(steps([0] * 3, **lost), H, recorded=False)
    assert left == 0
    assert found["executed"].sum(1).tolist() == [3, 2, 1]
    assert found["next", "terminated"].all()


def test_what_one_of_two_cameras_lost_is_lost() -> None:
    both = steps([0, 1, 2, 0, 1, 2])
    both["picture"] = both["picture"].repeat(1, 2)
    both["next", "picture"] = both["next", "picture"].repeat(1, 2)
    both["picture"][3, 1] = both["next", "picture"][2, 1] = -1
    found, left = decisions_of(both, H)
    assert found["executed"].sum(1).tolist() == [2]
    assert left == 3 + 1
