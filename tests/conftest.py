"""One thread per test, Ctrl-C heard, a cache of the tests' own, and runs of `gipo fit` small enough to be many."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import pytest
import torch

from tests import tiny_env
from tests.offline import Robot, make_robot
from tests.runs import Process, cli_args

torch.set_num_threads(1)
# A shell that runs the tests in the background has them ignore Ctrl-C, and with them every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
tiny_env.register()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where ingested logs go, instead of the user's cache; matplotlib keeps its list of fonts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., list[str]]:
    """`tiny(name, **options)`: arguments of a tiny `gipo fit` in a folder of this test."""
    return lambda name="run", **options: cli_args(tmp_path / name, **options)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`start(args)`: a `gipo` process that is gone when the test ends, with everything it started."""
    processes: list[Process] = []

    def start(args: list[str], environ: dict[str, str] | None = None) -> Process:
        processes.append(Process(args, tmp_path / f"log-{len(processes)}.txt", environ))
        return processes[-1]

    yield start
    for process in processes:
        process.kill_all()


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw no curves, which takes longer than the rest of a tiny run."""
    monkeypatch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)


@pytest.fixture(scope="session")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Robot:
    """A robot that has logged; nobody may write to its folder."""
    return make_robot(tmp_path_factory.mktemp("robot"))
