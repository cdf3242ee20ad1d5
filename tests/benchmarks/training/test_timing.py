"""Training time is what iterations took, by hand numbers: neither evaluations nor the start, and nothing for free."""

import pytest

from benchmarks.training.marks import Mark, note, read
from benchmarks.training.process_tree import Usage
from benchmarks.training.timing import Training, figures

# Started at 0. The first iteration ends at 12 and lasts unknowably long, the others 2 s, but for that after the
# evaluation: of it a second was done while the evaluation went on.
MARKS = [
    Mark("iteration", 12.0, 100), Mark("iteration", 14.0, 200), Mark("iteration", 16.0, 300),
    Mark("pause", 16.0, 300), Mark("resume", 46.0, 300, 0.5),
    Mark("iteration", 47.0, 400), Mark("iteration", 49.0, 500),
    Mark("pause", 49.0, 500), Mark("resume", 60.0, 500, 0.95),
]  # fmt: skip


def test_evaluations_do_not_count_and_disturbed_iterations_count_as_the_others() -> None:
    training = Training(MARKS, started=0.0)
    assert training.steps_per_s == 50.0
    assert [training.seconds(steps) for steps in (100, 200, 300, 400, 500)] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert training.evaluations() == [(300, 6.0, 0.5), (500, 10.0, 0.95)]


def test_start_up_ends_where_the_first_iteration_begins() -> None:
    assert Training(MARKS, started=0.0).startup == 10.0
    assert Training(MARKS, started=3.0).startup == 7.0


def test_the_first_evaluation_that_reaches_a_success() -> None:
    training = Training(MARKS, started=0.0)
    assert training.first(0.5) == (300, 6.0)
    assert training.first(0.9) == (500, 10.0)
    assert training.first(0.96) == (None, None)


def test_iterations_of_different_size_are_weighed_by_their_steps() -> None:
    marks = [Mark("iteration", 1.0, 10), Mark("iteration", 2.0, 20), Mark("iteration", 8.0, 50)]
    assert Training(marks, started=0.0).steps_per_s == 40 / 7


def test_a_run_without_two_iterations_in_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        Training([MARKS[0], Mark("pause", 13.0, 100), Mark("resume", 14.0, 100), MARKS[1]], started=0.0)


def test_processor_time_is_that_of_undisturbed_iterations() -> None:
    # one core busy all the time, two during the evaluation and the iteration after it
    usage = Usage(0.0, [0.0, 16.0, 47.0, 60.0], [1, 3 << 20, 2 << 20, 1], [0.0, 16.0, 78.0, 91.0])
    found = figures(Training(MARKS, started=0.0), usage)
    assert found["processor_s_per_1000_steps"] == pytest.approx(1000 * 6 / 300)
    assert (found["steps"], found["peak_mib"], found["startup_s"]) == (500, 3.0, 10.0)


def test_marks_are_read_as_they_were_noted(tmp_path) -> None:
    file = tmp_path / "marks.jsonl"
    note(file, "iteration", 1000)
    note(file, "resume", 1000, 0.25)
    first, second = read(file)
    assert (first.what, first.steps, first.success) == ("iteration", 1000, None)
    assert (second.what, second.steps, second.success) == ("resume", 1000, 0.25)
    assert second.at >= first.at
