"""Runs that collect on Ray: the same learning as in one process, and nothing left behind however they end."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gipo.cli import main
from tests.fingerprint import fingerprints
from tests.runs import Process, living, within

Args = Callable[..., list[str]]
Start = Callable[..., Process]

RAY = {
    "data__task": "Pendulum-v1",
    "data__collector__backend": "ray",
    "data__collector__workers": 1,
    "data__collector__worker_timeout": 20,
}
LONG = {"data__total_frames": 32 * 5000, "checkpoint__every": 5000}


def relatives(pid: int) -> list[int]:
    """A process and all that it started, Ray's own, which are in groups and sessions of theirs, among them."""
    found = [pid]
    for one in found:
        found += [child for child in living(lambda fields, one=one: int(fields[1]) == one) if child not in found]
    return found


def command(pid: int) -> bytes:
    """Its command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # ended while we looked
        return b""


def is_agent(pid: int) -> bool:
    """Whether this is one of Ray's two agents of a node, which tell a server that is dead too for 60 s of its death."""
    return b"Agent" in command(pid)


def left(pids: list[int]) -> list[int]:
    """Those that live, Ray's agents aside."""
    return [pid for pid in set(pids) & set(living(lambda _: True)) if not is_agent(pid)]


def actors(pids: list[int]) -> list[int]:
    """Those of them that collect."""
    return [pid for pid in pids if b"_Collecting" in command(pid)]


@pytest.mark.campaign
def test_one_actor_learns_what_one_process_does(tiny: Args, start: Start, tmp_path: Path, no_plot: None) -> None:
    main(tiny("here", data__task="Pendulum-v1", data__collector__workers=0))
    assert start(tiny("ray", **RAY)).wait(120) == 0
    ray, here = (fingerprints(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("ray", "here"))
    # The configuration, which "gipo" has the hash of, is another one, and so is the number of workers; the global
    # generators are not the collectors'.
    assert {name for name in here if ray[name] != here[name]} == {"gipo", "data/generators", "data/workers"}


@pytest.mark.campaign
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_outlives_an_actor_and_leaves_nothing_behind(
    number: int, start: Start, tiny: Args, tmp_path: Path
) -> None:
    asynchronous = {"data__collector__asynchronous": "true"}
    process = start(tiny(**RAY | LONG | asynchronous))
    process.wait_for_training()
    everything = relatives(process.pid)
    (actor,) = actors(everything)
    os.kill(actor, signal.SIGKILL)
    process.wait_for(lambda: f"process {actor}) died; replaced (1 of 3)" in process.output, 30)
    process.wait_for(lambda: actors(relatives(process.pid)) not in ([], [actor]), 30)
    everything = list({*everything, *relatives(process.pid)})
    began = time.monotonic()
    for pid in process.family():  # to the whole group, as a terminal or a batch system sends it
        os.kill(pid, number)
    code = process.wait(30)
    assert "Traceback" not in process.output
    if number == signal.SIGTERM:
        assert code == 143, process.output
        torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert within(30, lambda: not left(everything))
    assert time.monotonic() - began < 30


@pytest.mark.campaign
@pytest.mark.parametrize("repeat", range(20))
def test_twenty_times_a_killed_run_leaves_nothing_behind(repeat: int, start: Start, tiny: Args) -> None:
    process = start(tiny(**RAY | LONG))
    process.wait_for_training()
    everything = relatives(process.pid)
    process.signal(signal.SIGKILL)
    assert within(30, lambda: not left(everything))
    assert within(90, lambda: not set(everything) & set(living(lambda _: True)))
