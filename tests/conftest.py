"""One thread per test, and runs of `gipo fit` small enough to be many."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests import tiny_env
from tests.runs import Process, cli_args

torch.set_num_threads(1)
tiny_env.register()


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., list[str]]:
    """`tiny(name, **options)`: arguments of a tiny `gipo fit` in a folder of this test."""
    return lambda name="run", **options: cli_args(tmp_path / name, **options)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str]], Process]]:
    """`start(args)`: a `gipo` process that is gone when the test ends, with everything it started."""
    processes: list[Process] = []

    def start(args: list[str]) -> Process:
        processes.append(Process(args, tmp_path / f"log-{len(processes)}.txt"))
        return processes[-1]

    yield start
    for process in processes:
        process.kill_all()


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw no curves, which takes longer than the rest of a tiny run."""
    monkeypatch.setattr("gipo.callbacks.plot_curves", lambda *_, **__: None)
