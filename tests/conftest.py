"""One thread per test, Ctrl-C heard, a cache of the tests' own, and runs of `gipo fit` small enough to be many."""

import functools
import gc
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import deploy  # noqa: F401 (which keeps ONNX Runtime from reporting home, also where a test imports it itself)
from tests.runs import Process, cli_args

if TYPE_CHECKING:
    from tests.offline import Robot

TRAINS = importlib.util.find_spec("torch") is not None
LEROBOT = importlib.util.find_spec("lerobot") is not None
if TRAINS:
    import torch

    from tests import tiny_env

    torch.set_num_threads(1)
    tiny_env.register()
# A shell that runs the tests in the background, or `nohup`, has them ignore signals that the tests send, and with them
# every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole commands, which take longest, come first: no core is left to wait for the last of them.

    Before them those of Ray: no worker takes a part of them from another one's end, and starts a second cluster.
    """
    items.sort(
        key=lambda item: (
            item.path.stem != "test_ray_actors",
            item.path.parent != Path(__file__).parent,
            item.path.stem != "test_readme",
        )
    )


def pytest_collection_finish() -> None:
    """What was imported and collected never becomes garbage: it is not looked through again and again."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """On the base install, a file of tests that imports what an extra brings is skipped, and says so."""
    report = yield
    missing = re.search(r"ModuleNotFoundError: (No module named '[\w.]+')", str(report.longrepr))
    if not TRAINS and report.outcome == "failed" and missing:
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {missing[1]}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what is left out where the real LeRobot is missing: with xdist, a file that skips itself is not counted."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not LEROBOT and (whole or any("tests/lerobot" in each for each in config.args)):
        terminalreporter.write_line("tests/lerobot is left out: the real LeRobot is not installed here; make lerobot")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a terminal; what a person types goes into this descriptor."""
    master, slave = os.openpty()
    with open(slave) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield master
    os.close(master)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where ingested logs go, instead of the user's cache; matplotlib keeps its list of fonts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("matplotlib"):
            import matplotlib

            patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_registry() -> Iterator[None]:
    """Every export makes torch's registry of operators anew, a quarter of its time; none of ours adds to it."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("onnxscript"):
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(autouse=True)
def unseeded() -> None:
    """What a test before this one gave to `seed_everything` is not the default seed of this one."""
    os.environ.pop("PL_GLOBAL_SEED", None)


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
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int | list[str]]]:
    """What was brought to disk since, in order: a file and its size then, or a folder and the names in it then."""
    found: list[tuple[Path, int | list[str]]] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        found.append((path, sorted(os.listdir(path)) if path.is_dir() else path.stat().st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return found


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw no curves, which takes longer than the rest of a tiny run."""
    monkeypatch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)


@pytest.fixture(scope="session")
def robot(tmp_path_factory: pytest.TempPathFactory) -> "Robot":
    """A robot that has logged; nobody may write to its folder."""
    pytest.importorskip("torch", reason="its policy is exported with torch")
    from tests.offline import make_robot

    return make_robot(tmp_path_factory.mktemp("robot"))
