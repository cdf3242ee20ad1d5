"""What a person sees of a loop."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gipo.commands.studies.pipeline.headings import Narrator, Stage, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 61.6, 100.0, 100.4])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))


def train(told: Stage) -> int:
    told.result = "success 0.50 [0.30, 0.70]"
    return 7


def export(told: Stage) -> None:
    told.detail = "a.onnx"


def tell(narrator: Narrator) -> None:
    assert narrator.stage("Train", train) == 7
    narrator.stage("Export", export)


@pytest.mark.usefixtures("clock")
def test_one_loop_has_a_heading_a_stage_and_a_line_of_what_came_out() -> None:
    said: list[str] = []
    tell(Narrator(2, say=said.append))
    assert said == [
        "\n[1/2] Train",
        "      success 0.50 [0.30, 0.70], 1 min 02 s",
        "\n[2/2] Export",
        "      a.onnx, 0 s",
    ]


@pytest.mark.usefixtures("clock")
def test_loops_side_by_side_have_a_line_a_result_and_one_bar() -> None:
    said: list[str] = []
    took: list[float] = []
    tell(Narrator(2, "seed 3", said.append, took.append))
    assert said == ["seed 3: Train: success 0.50 [0.30, 0.70]"]
    assert took == pytest.approx([61.6, 0.4])


@pytest.mark.usefixtures("clock")
def test_a_stage_that_fails_has_no_result() -> None:
    said: list[str] = []
    narrator = Narrator(2, say=said.append)
    with pytest.raises(ZeroDivisionError):
        narrator.stage("Train", lambda told: 1 / 0)
    assert said == ["\n[1/2] Train"]


def test_stages_side_by_side_have_their_headings_first_and_results_in_the_same_order() -> None:
    said: list[str] = []
    exported = threading.Event()

    def wait(told: Stage) -> int:
        assert exported.wait(10)
        return train(told)

    narrator = Narrator(3, say=said.append)
    narrator.stage("Begin", lambda told: None)
    with ThreadPoolExecutor(2) as pool:
        parts = [("Train", wait), ("Export", lambda told: (export(told), exported.set()))]
        assert narrator.together(pool, parts)[0] == 7
    assert said[2:] == [
        "\n[2/3] Train",
        "\n[3/3] Export",
        "      [2/3] success 0.50 [0.30, 0.70], 0 s",
        "      [3/3] a.onnx, 0 s",
    ]


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.2, 59.4, 60.0, 185.0)] == ["0 s", "59 s", "1 min 00 s", "3 min 05 s"]
