"""The history of a place: which order of changes is one, and what became of each policy."""

from pathlib import Path

import pytest

from gipo.common.errors import UserError
from robots.review.promotions import Change, PairsSaid, placements, read_history, standing, write_line

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
MINUTE = 60 * 10**9
PAIRS = PairsSaid(("one",), 21, 0.5, 0.25, 0.75)


def test_a_roll_back_goes_through_those_that_stand() -> None:
    history = [Change(A, False, 0), Change(B, False, 0)]
    assert standing([]) == []
    assert standing(history) == [A, B]
    assert standing([*history, Change(A, True, 0)]) == [A]
    assert standing([*history, Change(A, True, 0), Change(C, False, 0)]) == [A, C]
    assert standing([*history, Change(A, False, 0), Change(B, True, 0)]) == [A, B]


@pytest.mark.parametrize("back", [[Change(A, True, 0)], [Change(A, False, 0), Change(A, True, 0)],
                                  [Change(A, False, 0), Change(B, False, 0), Change(C, True, 0)]])  # fmt: skip
def test_nobody_goes_back_to_what_was_not_there(back: list[Change]) -> None:
    with pytest.raises(ValueError, match="was not before the one in place"):
        standing(back)


def test_what_became_of_each_policy() -> None:
    history = [
        Change(A, False, 0), Change(B, False, MINUTE, "faster", PAIRS), Change(C, False, 2 * MINUTE, "a trial"),
        Change(B, True, 3 * MINUTE, "it shook"),
    ]  # fmt: skip
    assert placements(history) == {
        A: "replaced 1970-01-01 00:01",
        B: "in place again since 1970-01-01 00:03 (21 pairs: +0.50 [+0.25, +0.75]; faster)",
        C: "rolled back 1970-01-01 00:03 (it shook)",
    }


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    history = [Change(A, False, 5, "näher", None), Change(B, False, 6, "", PAIRS), Change(A, True, 7)]
    path.write_text("".join(map(write_line, history)))
    assert read_history(path) == history


GOOD = write_line(Change(A, False, 5, "", PAIRS))


@pytest.mark.parametrize(
    "line",
    [
        "", "nothing", "[]", "{}", "[" * 100_000, GOOD.replace(A, "a" * 63), GOOD.replace(A, "../" * 21 + "x"),
        GOOD.replace("5,", "-5,", 1), GOOD.replace('"wall_ns": 5', '"wall_ns": 99999999999999999999'),
        GOOD.replace("false", "0"), GOOD.replace("21", '"21"'), GOOD.replace("0.25", "null"),
        GOOD.replace("0.25", "NaN"), GOOD.replace("0.75", "Infinity"), GOOD.replace('"doubts": []', '"doubts": [1]'),
        GOOD.replace('["one"]', "[1]"), GOOD.replace('"because"', '"why"'), write_line(Change(B, True, 5)),
    ],
)  # fmt: skip
def test_a_line_that_is_no_change_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "promotions.jsonl"
    path.write_text(GOOD + line.rstrip("\n") + "\n")
    with pytest.raises(UserError, match=r"promotions.jsonl: line 2 is no change of a policy in place: ") as told:
        read_history(path)
    assert str(told.value).endswith("repair it, or move the file and policy.onnx away: promote begins a new history "
                                    "then, and policies/ keeps what was in place")  # fmt: skip
