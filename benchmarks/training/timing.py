"""What follows from the marks of a run: seconds of training, steps/s, start-up; and from watching its processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from benchmarks.training.marks import Mark
from benchmarks.training.process_tree import Usage
from gipo.common.errors import UserError


@dataclass(frozen=True)
class Stretch:
    """An iteration.

    Args:
        start: seconds at which the one before it ended, or the evaluation after that.
        end: seconds at which it ended.
        steps: environment steps that it made.
        undisturbed: another iteration went directly before it.
    """

    start: float
    end: float
    steps: int
    undisturbed: bool


class Training:
    """The seconds of a run that were training, evaluations and start-up left out.

    The first iteration, in which simulators start, and those right after an evaluation, during which a collector beside
    the learner may have gone on, count as long as the others are in the mean, step by step.

    Args:
        marks: of the run, in order.
        started: seconds at which its process was started.
    """

    def __init__(self, marks: Sequence[Mark], started: float):
        self.marks = marks
        self.stretches = _stretches(marks)
        steady = [stretch for stretch in self.stretches if stretch.undisturbed]
        if not steady:
            raise UserError("no iteration follows another: the run is too short to be timed; give it more steps")
        self.steady = steady
        self.seconds_per_step = sum(one.end - one.start for one in steady) / sum(one.steps for one in steady)
        first = next(mark for mark in marks if mark.what == "iteration")
        self.startup = first.at - started - first.steps * self.seconds_per_step

    @property
    def steps_per_s(self) -> float:
        """Environment steps a second, learning included."""
        return 1 / self.seconds_per_step

    def seconds(self, steps: int) -> float:
        """Training time of the iterations up to `steps` environment steps."""
        done, total = 0, 0.0
        first = self.marks[0].steps
        for stretch in [Stretch(0.0, 0.0, first, False), *self.stretches]:
            done += stretch.steps
            if done > steps:
                break
            total += stretch.end - stretch.start if stretch.undisturbed else stretch.steps * self.seconds_per_step
        return total

    def evaluations(self) -> list[tuple[int, float, float]]:
        """Environment steps, seconds of training and success of every evaluation."""
        done = [mark for mark in self.marks if mark.what == "resume" and mark.success is not None]
        return [(mark.steps, self.seconds(mark.steps), mark.success or 0.0) for mark in done]

    def first(self, threshold: float) -> tuple[int, float] | tuple[None, None]:
        """Environment steps and seconds of the first evaluation with a success of at least `threshold`, if any."""
        return next(((n, seconds) for n, seconds, success in self.evaluations() if success >= threshold), (None, None))


def figures(training: Training, usage: Usage) -> dict[str, Any]:
    """What a run's speed, start-up and memory were; processor time is that of undisturbed iterations."""
    processor = sum(usage.processor_seconds(stretch.start, stretch.end) for stretch in training.steady)
    return {
        "steps": training.marks[-1].steps,
        "steps_per_s": training.steps_per_s,
        "processor_s_per_1000_steps": 1000 * processor / sum(stretch.steps for stretch in training.steady),
        "startup_s": training.startup,
        "peak_mib": usage.peak_mib,
    }


def simulator(run: Path) -> str:
    """What simulated the run of `gipo fit` in this folder, as its configuration says."""
    found: str = yaml.safe_load((run / "config.yaml").read_text())["data"].get("simulator", "python")
    return found


def _stretches(marks: Sequence[Mark]) -> list[Stretch]:
    """Iterations but the first, which has no beginning."""
    found, paused = [], False
    start = next(index for index, mark in enumerate(marks) if mark.what == "iteration")
    done = marks[start].steps
    for before, mark in pairwise(marks[start:]):
        paused |= mark.what != "iteration"
        if mark.what == "iteration":
            found.append(Stretch(before.at, mark.at, mark.steps - done, not paused))
            done, paused = mark.steps, False
    return found
