"""What a foreign episode says of its end and its success is taken as it is said."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from datamodules.ingest.sources.flags import ends, flags
from gipo.common.errors import UserError
from tests.datamodules.ingest.builders import store_of
from tests.datamodules.ingest.foreign import write_frames

LENGTHS = (5, 7, 4)
LAST = np.cumsum(LENGTHS) - 1


def at_the_end(value: bool) -> np.ndarray:
    column = np.zeros(sum(LENGTHS), bool)
    column[LAST] = value
    return column


# terminated, truncated, done, success at the last frame (None: no such column) → whether the episode terminated.
CASES = [
    ((None, None, None, None), False),
    ((None, None, True, None), True),
    ((None, None, False, None), False),
    ((None, True, True, None), False),
    ((None, False, True, None), True),
    ((False, None, True, None), False),
    ((True, None, True, None), True),
    ((False, True, True, None), False),
    ((False, False, True, None), False),
    ((True, True, True, None), True),
    ((True, False, False, None), True),
    ((None, True, None, None), False),
    ((None, None, None, True), True),
    ((None, None, False, True), True),
    ((None, True, True, True), False),
    ((False, True, True, True), False),
    ((False, None, None, True), False),
    ((None, False, None, True), True),
    ((None, None, None, False), False),
]


@pytest.mark.parametrize(("said", "terminated"), CASES)
def test_ends_of_lerobot_episodes(said: tuple[bool | None, ...], terminated: bool, tmp_path: Path) -> None:
    names = ("terminated", "truncated", "done", "success")
    columns = {f"next.{name}": at_the_end(value) for name, value in zip(names, said, strict=True) if value is not None}
    write_frames(tmp_path / "d", LENGTHS, {**columns, "next.reward": np.arange(16.0)})
    store = store_of(tmp_path / "d", cache=tmp_path / "cache")
    frames = store.frames
    assert int(frames["next", "terminated"].sum()) == (3 if terminated else 0)
    assert int(frames["next", "truncated"].sum()) == (0 if terminated else 3)
    # A terminated episode keeps its last step; of another nobody knows what it led to.
    kept = np.ones(16, bool)
    kept[LAST] = terminated
    assert frames["next", "reward"].tolist() == np.arange(16.0)[kept].tolist()
    success = said[-1]
    assert (store.facts.judged, store.facts.successes) == ((3, 3 * success) if success is not None else (0, 0))
    alone = said[2] is not None and said[:2] == (None, None)
    assert any("next.done alone" in note for note in store.facts.notes) == alone


def test_an_episode_ends_one_way_and_at_its_last_step_at_the_latest() -> None:
    for said in product([None, False, True], repeat=4):
        names = ("terminated", "truncated", "done", "success")
        known = {
            name: np.array([False, False, value]) for name, value in zip(names, said, strict=True) if value is not None
        }
        terminated, truncated = ends(known, 3)
        assert not (terminated & truncated).any()
        assert (terminated | truncated).tolist() == [False, False, True]


@pytest.mark.parametrize("name", ["next.done", "next.truncated", "next.terminated"])
def test_an_episode_that_goes_on_after_its_end_is_refused(name: str, tmp_path: Path) -> None:
    write_frames(tmp_path / "d", LENGTHS, {name: np.arange(16) == 10})  # the last but one of the second
    with pytest.raises(UserError, match="episode 1, step 5: the episode is done and yet goes on"):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


@pytest.mark.parametrize("value", [-1.0, np.nan, 2.0, 0.5])
@pytest.mark.parametrize("name", ["next.success", "next.done", "valid"])
def test_what_is_neither_yes_nor_no_is_refused(name: str, value: float, tmp_path: Path) -> None:
    column = np.zeros(16)
    column[8] = value
    write_frames(tmp_path / "d", LENGTHS, {name: column})
    with pytest.raises(UserError, match=rf"episode 1, step 3: {name} is .*; it must be 0 or 1"):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


def test_flags_may_be_numbers_and_columns_of_one() -> None:
    assert flags("done", np.array([[0.0], [1.0]]), 2).tolist() == [False, True]
    assert flags("done", np.array([0, 1], np.int8), 2).dtype == np.bool_
    with pytest.raises(UserError, match=r"its done has shape \[2, 2\]"):
        flags("done", np.zeros((2, 2)), 2)
