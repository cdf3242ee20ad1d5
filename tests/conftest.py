"""One thread per test, and runs of `gipo fit` small enough to be many."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_env
import torch

torch.set_num_threads(1)
tiny_env.register()

TINY = {
    "seed_everything": 7,
    "trainer.accelerator": "cpu",
    "trainer.check_val_every_n_epoch": 100,
    "checkpoint.every": 1,
    "data.total_frames": 128,
    "data.frames_per_iteration": 32,
    "data.capacity": 96,
    "data.rounds": 2,
    "data.batch": 32,
    "data.collector.num_envs": 4,
    "data.evaluation.episodes": 2,
    "data.evaluation.num_envs": 2,
    "model.policy": "gipo.policies.TokenPolicy",
    "model.policy.bins": 8,
    "model.policy.network": "gipo.networks.SeparateNetworks",
    "model.policy.network.hidden": "[16]",
}


def cli_args(folder: Path, command: str = "fit", **options: object) -> list[str]:
    """Arguments of a tiny run in `folder`; options override, `__` standing for the dot, None leaving one out."""
    chosen = TINY | {name.replace("__", "."): value for name, value in options.items()}
    chosen["trainer.default_root_dir"] = folder
    return [command, *(f"--{name}={value}" for name, value in chosen.items() if value is not None)]


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., list[str]]:
    """`tiny(name, **options)`: arguments of a tiny `gipo fit` in a folder of this test."""
    return lambda name="run", **options: cli_args(tmp_path / name, **options)


class Process:
    """A command line run in a process group of its own."""

    def __init__(self, args: list[str], log: Path):
        self.log = log
        # One thread, as the command line would choose: bit-identity is promised for one thread count.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with open(log, "w") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "gipo.cli", *args],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Both streams so far."""
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        """Exit code; a run still alive after `seconds` fails the test."""
        return self.popen.wait(seconds)

    def wait_for(self, condition: Callable[[], object], seconds: float, pause: float = 0.02) -> None:
        """Until `condition()`; the run must still be alive then."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.popen.poll() is None, f"ended early with {self.popen.returncode}:\n{self.output}"
            assert time.monotonic() < end, f"not within {seconds} s:\n{self.output}"
            time.sleep(pause)

    def family(self) -> list[int]:
        """Living processes of its group, itself included; zombies do not count."""
        return living(lambda fields: int(fields[2]) == self.popen.pid)

    def kill_all(self) -> None:
        """Leave nothing behind, whatever the test found."""
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        self.popen.wait(10)


def living(wanted: Callable[[list[str]], bool]) -> list[int]:
    """Processes that are not zombies and whose /proc stat fields (state, ppid, pgrp, …) are `wanted`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # ended while we looked
                continue
            if fields[0] != "Z" and wanted(fields):
                found.append(int(entry.name))
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str]], Process]]:
    """`start(args)`: a `gipo` process that is gone when the test ends."""
    processes: list[Process] = []

    def start(args: list[str]) -> Process:
        processes.append(Process(args, tmp_path / f"log-{len(processes)}.txt"))
        return processes[-1]

    yield start
    for process in processes:
        process.kill_all()
