"""Run a command and watch all its processes: memory and processor time.

What processes share counts once. Two figures are at most the true one, and the larger is taken: the sum of their
proportional set sizes (PSS), of which processes outside the command that have mapped the same libraries take a part;
and what each has for itself (USS), plus what the one that shares most has beside that.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from gipo.common.errors import UserError


@dataclass
class Usage:
    """What the processes of a command took.

    Args:
        started: seconds of `time.monotonic` at which it was started.
        at: seconds of `time.monotonic` of each sample.
        memory: bytes of all its processes together, of each sample.
        processor: seconds of processor time until then, of all its processes, of each sample.
    """

    started: float
    at: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    @property
    def peak_mib(self) -> float:
        """MiB of the largest sample."""
        return max(self.memory) / 2**20

    def processor_seconds(self, start: float, end: float) -> float:
        """Processor time between two moments of `time.monotonic`."""
        before, after = np.interp([start, end], self.at, self.processor)
        return float(after - before)


def watched(
    command: Sequence[str], cwd: Path, log: Path, environment: Mapping[str, str] | None = None, every: float = 0.25
) -> Usage:
    """Run `command` to its end; its output goes to `log`.

    Args:
        command: with its arguments.
        cwd: working folder.
        log: file for what it prints.
        environment: that it sees; that of this process when None.
        every: seconds between samples.

    Raises:
        UserError: when it fails, with the last line of its output; the whole is printed to stderr.
    """
    usage = Usage(time.monotonic())
    with open(log, "w") as output, subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT
    ) as process:  # fmt: skip
        try:
            root = psutil.Process(process.pid)
            while process.poll() is None:
                _sample(root, usage)
                time.sleep(every)
        finally:
            process.kill()
    if process.returncode:
        lines = log.read_text().splitlines()
        print(*lines, sep="\n", file=sys.stderr)
        raise UserError(f"{' '.join(command)} ended with {process.returncode}: {(lines or [''])[-1]}")
    return usage


def _sample(root: psutil.Process, usage: Usage) -> None:
    """Add what a process and its descendants have now, unless one of them came or went meanwhile.

    What they shared would count twice, once as that of the one that went and once as all that of the one that stayed.
    """
    at, processor, proportional, own, shared = time.monotonic(), 0.0, 0, 0, 0
    try:
        members = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in members:
        try:
            times = member.cpu_times()
            # that of processes that have ended is their parents'
            processor += times.user + times.system + times.children_user + times.children_system
            memory = member.memory_full_info()
            proportional, own = proportional + memory.pss, own + memory.uss
            shared = max(shared, memory.rss - memory.uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # ended in between
            return
    try:
        unchanged = members == [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    if own and unchanged:
        usage.at.append(at)
        usage.memory.append(max(proportional, own + shared))
        usage.processor.append(processor)
