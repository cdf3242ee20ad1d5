"""Tiny runs of the command line, in this process or in one that may be killed, and what a killed study leaves."""

import importlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TINY = {
    "seed_everything": 7,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",  # whatever the processor is
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

# Imports take longer than a tiny run: a server that has done them forks every process that a test starts.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["gipo.commands.fit.cli", "tests.tiny_env"])


def cli_args(folder: Path, command: str = "fit", **options: object) -> list[str]:
    """Arguments of a tiny run in `folder`; options override, `__` standing for the dot, None leaving one out."""
    chosen = TINY | {name.replace("__", "."): value for name, value in options.items()}
    chosen["trainer.default_root_dir"] = folder
    return [command, *(f"--{name}={value}" for name, value in chosen.items() if value is not None)]


class Process:
    """A command with these arguments in a session of its own, both output streams in `log`, `environ` added to its own.

    Args:
        module: of the command; its `main` is called.
    """

    def __init__(self, args: list[str], log: Path, environ: dict[str, str] | None = None, module: str = "gipo.cli"):
        self.log = log
        log.touch()
        self.process = CONTEXT.Process(target=_command, args=(module, args, str(log), environ or {}))
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def output(self) -> str:
        """Both streams so far."""
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        """Exit code, −n after signal n; a run still alive after `seconds` fails the test."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still alive after {seconds} s:\n{self.output}"
        return self.process.exitcode

    def wait_for(self, condition: Callable[[], object], seconds: float, pause: float = 0.02) -> None:
        """Until `condition()`; the run must still be alive then."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), f"ended early with {self.process.exitcode}:\n{self.output}"
            assert time.monotonic() < end, f"not within {seconds} s:\n{self.output}"
            time.sleep(pause)

    def wait_for_training(self, seconds: float = 120) -> None:
        """Until the first iteration is done."""
        done = re.compile("step/s|iteration")  # in what follows the last empty bar
        self.wait_for(lambda: done.search(self.output.rpartition("0%|")[2].partition("%|")[2]), seconds)

    def signal(self, number: int) -> None:
        """Send a signal to the main process alone."""
        os.kill(self.pid, number)

    def family(self) -> list[int]:
        """Living processes of its session: itself and all it started."""
        return living(lambda fields: int(fields[3]) == self.pid)

    def kill_all(self) -> None:
        """Leave nothing behind, whatever the test found."""
        for pid in self.family():
            os.kill(pid, signal.SIGKILL)
        self.process.join(10)


def living(wanted: Callable[[list[str]], bool]) -> list[int]:
    """Processes that are not zombies and whose /proc stat fields (state, ppid, pgrp, session, …) are `wanted`."""
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


def within(seconds: float, condition: Callable[[], object]) -> bool:
    """Whether `condition()` comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def outlives(study: Callable[[Path], None], folder: Path, started: Path) -> bool:
    """Whether what a study has started goes on when the study is killed; it is ended then.

    Args:
        study: a function of a module; called with `folder`, in a process of its own.
        folder: of the study.
        started: file into which what it starts writes its process id.
    """
    process = multiprocessing.get_context("spawn").Process(target=study, args=(folder,))
    process.start()
    begun = within(60, lambda: started.exists() and started.read_text())
    process.kill()
    process.join()
    assert begun, "it starts nothing"
    if within(60, lambda: not is_alive(int(started.read_text()))):
        return False
    os.kill(int(started.read_text()), signal.SIGKILL)
    return True


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _command(module: str, args: list[str], log: str, environ: dict[str, str]) -> None:
    os.setsid()
    os.environ |= environ
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server that forked us ignores it
    from tests.tiny_env import register

    register()
    try:
        importlib.import_module(module).main(args)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
