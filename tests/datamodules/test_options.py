"""Options of the data modules: which are refused, what they come to in processes and steps, and when a run is told."""

import math
import re
from collections.abc import Callable
from typing import Any, Literal

import pytest

from datamodules.collect.stagger import Staggered
from datamodules.envs.simulation import Shortened
from datamodules.envs.tasks import simulation
from datamodules.options import (
    CollectorOptions,
    EvaluationOptions,
    RayOptions,
    refuse_negative,
    refuse_no_share,
    refuse_not_positive,
    run_length,
)
from gipo.common.errors import UserError

TASK, THREADED = simulation("Tiny-v0"), simulation("Pendulum-v1")
RAY: dict[str, Any] = {"backend": "ray", "workers": 1}


@pytest.mark.parametrize(
    ("options", "name", "bound", "positive"),
    [
        (RayOptions, "data.collector.ray.cpus", 0.5, True),
        (RayOptions, "data.collector.ray.start_timeout", 0.5, True),
        (RayOptions, "data.collector.ray.max_staleness", 0, False),
        (RayOptions, "data.collector.ray.replacements", 0, False),
        (CollectorOptions, "data.collector.num_envs", 1, True),
        (CollectorOptions, "data.collector.threads", 1, True),
        (CollectorOptions, "data.collector.worker_timeout", 0.5, True),
        (CollectorOptions, "data.collector.max_steps", 1, True),
        (CollectorOptions, "data.collector.workers", 0, False),
        (EvaluationOptions, "data.evaluation.episodes", 1, True),
        (EvaluationOptions, "data.evaluation.test_episodes", 1, True),
        (EvaluationOptions, "data.evaluation.num_envs", 1, True),
        (EvaluationOptions, "data.evaluation.max_steps", 1, True),
        (EvaluationOptions, "data.evaluation.seed", 0, False),
    ],
)
def test_each_is_refused_by_its_name_below_what_it_may_be(
    options: Callable[..., Any], name: str, bound: float, positive: bool
) -> None:
    option = name.rpartition(".")[2]
    assert getattr(options(**{option: bound}), option) == bound
    below, must = (0, "be positive") if positive else (-1, "not be negative")
    with pytest.raises(UserError, match=rf"^{name} must {must}, got {below}$"):
        options(**{option: below})


def test_bounds_are_of_numbers_alone() -> None:
    for refuse in (refuse_not_positive, refuse_no_share):
        with pytest.raises(UserError, match=r"^of\.it must .*, got nan$"):
            refuse("of.", {"one": 1, "it": math.nan})
    refuse_negative("of.", {"it": 0})
    refuse_no_share("of.", {"none": 0, "all": 1})
    for value in (-0.1, 1.1):
        with pytest.raises(UserError, match=rf"^of\.it must lie in \[0, 1\], got {value}$"):
            refuse_no_share("of.", {"it": value})


def test_only_what_is_asked_for_needs_workers() -> None:
    for workers in (None, 0):
        with pytest.raises(UserError, match=r"^data\.collector\.backend=ray needs actors: .* at least 1$"):
            CollectorOptions(workers=workers, backend="ray")
    with pytest.raises(UserError, match=r"^data\.collector\.asynchronous=true needs workers: .* at least 1$"):
        CollectorOptions(workers=0, asynchronous=True)
    assert CollectorOptions(asynchronous=True).processes() == 1, "which is what it stands for"


@pytest.mark.parametrize(
    ("options", "learners", "on_device", "processes"),
    [
        ({}, 1, False, 1),
        ({}, 2, False, 1),
        ({}, 3, False, 0),  # four cores
        ({}, 1, True, 0),
        ({"asynchronous": True}, 3, True, 1),
        ({"workers": 0}, 1, False, 0),
        ({"workers": 5}, 3, True, 5),
    ],
)
def test_a_learner_has_as_many_workers_as_cores_are_left(
    options: dict[str, Any], learners: int, on_device: bool, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.options.cores", lambda: 4)
    assert CollectorOptions(**options).processes(learners, on_device) == processes


def test_a_task_is_threaded_then_shortened_then_staggered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("datamodules.options.on_threads", lambda *given: asked.append(given) or THREADED)
    every = CollectorOptions(threads=3, max_steps=9, stagger=True)
    assert every.simulated(TASK) == Staggered(Shortened(THREADED, 9))
    assert asked == [(TASK, 3)]
    assert CollectorOptions(stagger=True).simulated(TASK) == Staggered(TASK)
    assert CollectorOptions(max_steps=9).simulated(TASK) == Shortened(TASK, 9)
    assert asked == [(TASK, 3)], "one thread is what there is"


@pytest.mark.parametrize(
    ("workers", "asynchronous", "backend", "together"),
    [
        (None, False, "process", 4),
        (0, False, "process", 4),
        (3, False, "process", 12),
        (3, True, "process", 4),  # each with segments of its own
        (3, True, "ray", 12),
        (3, False, "ray", 12),
    ],
)
def test_an_iteration_is_whole_steps_of_the_simulators_behind_a_segment(
    workers: int | None, asynchronous: bool, backend: Literal["process", "ray"], together: int
) -> None:
    options = CollectorOptions(num_envs=4, workers=workers, asynchronous=asynchronous, backend=backend)
    assert options.simulators_together == together
    options.refuse_uneven(4 * together, 2)
    with pytest.raises(UserError, match=rf"frames_per_iteration={3 * together} must .* of the {2 * together} sim"):
        options.refuse_uneven(3 * together, 2)


@pytest.mark.parametrize(
    ("horizon", "options", "told"),
    [  # 2 iterations of 400 transitions, by 4 simulators: 200 steps of each
        (200, {}, None),
        (50, {}, None),
        (400, {}, "here every 200 steps of a simulator, inside an episode's 400"),
        (60, {}, "here every 200 steps of a simulator, inside an episode's 60"),
        (200, {"workers": 2}, "here every 100 steps of a simulator, inside an episode's 200"),
        (None, {}, None),
        (None, {"stagger": True}, None),
        (60, {"workers": 2, "asynchronous": True}, None),  # they go on whatever is saved
        (60, {**RAY, "asynchronous": True}, "here every 200 steps"),
        (100, {"stagger": True}, None),  # each begins short, and has one that is whole
        (90, {"stagger": True}, None),
        (101, {"stagger": True}, r"every 200 steps of a simulator, whose .* have 101: .* of at least 3$"),
        (100, {"stagger": True, "workers": 2}, r"every 100 steps of a simulator, .* of at least 4$"),
    ],
)
def test_a_run_is_told_where_checkpoints_cut_its_episodes(
    horizon: int | None, options: dict[str, Any], told: str | None
) -> None:
    found = CollectorOptions(num_envs=4, **options).notes(horizon, 400, 2)
    if told is None:
        assert found == []
    else:
        (note,) = found
        assert re.search(told, note)


def test_evaluation_is_on_the_goals_of_every_run_before() -> None:
    """Else no figure of two runs could be compared."""
    said = {"episodes": 20, "test_episodes": 50, "num_envs": 10, "seed": 1_000_003, "deterministic": False}
    assert EvaluationOptions() == EvaluationOptions(**said, max_steps=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "warm_up", "expected"),
    [
        (64, 0, (2, 64)),
        (64, 32, (2, 64)),  # which is the first iteration
        (64, 33, (2, 96)),
        (64, 96, (2, 128)),
        (33, 0, (2, 64)),
        (32, 33, (1, 64)),
    ],
)
def test_a_run_is_whole_iterations_of_which_the_first_warms_up(
    total: int, warm_up: int, expected: tuple[int, int]
) -> None:
    assert run_length(total, 32, warm_up) == expected
