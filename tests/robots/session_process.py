"""One session of `gipo-robot run` in a process of its own, with a driver to which an event happens in a given state."""

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import robots.latch
import robots.session.runner
from robots import cli
from robots.base import Observation
from robots.session.lifecycle import LifeCycle, State
from tests.robots.builders import make_spec

PLACES = {"connect": "logged", "prepare": "preparing", "observe": "engaged", "close": "closing"}  # method → its state
HANGING = 0.4  # seconds after which what hangs is given up, here
PATIENT = 10.0  # and what does not, which on a busy machine is slow
EPISODES, STEPS = 2, 10


class Wave:
    """A policy for the arm, in place of an artifact."""

    policy_id = "cd" * 32

    def __init__(self, spec: Any):
        keys = ("observation_names", "observation_units", "action_names", "action_units", "action_low", "action_high")
        values = {key: getattr(spec, key) for key in keys}
        self.manifest = types.SimpleNamespace(
            **values, control_rate_hz=spec.control_rate_hz, vision=None, policy_version=1, task="wave",
            to_json=lambda: json.dumps({"task": "wave"}),
        )  # fmt: skip

    def act(self, observation: np.ndarray, rng: np.random.Generator, deterministic: bool = False) -> Any:
        action = rng.uniform(0, 1, 3).astype(np.float32)
        return types.SimpleNamespace(action=action, latent=action, log_prob=np.zeros(3, np.float32), params=None)


class Arm:
    """A robot that writes each of its calls to a file, and in one of them something happens."""

    spec = make_spec()

    def __init__(self, calls: str, at: str, event: str, number: int):
        self.calls, self.at, self.event, self.number = Path(calls), at, event, number
        self.ticks, self.stopped, self.twice = 0, threading.Event(), event == "signals"

    def called(self, name: str) -> None:
        with self.calls.open("a") as file:
            file.write(f"{name}\n")
        if PLACES.get(name) == self.at and (name != "observe" or self.ticks == 3):
            happen(self)

    def connect(self) -> None:
        self.called("connect")

    def prepare(self, seed: int) -> None:
        self.stopped.clear()
        self.ticks = 0
        self.called("prepare")

    def observe(self) -> Observation:
        self.ticks += 1
        self.called("observe")
        if self.at == "stopped" and self.ticks == 3:
            self.at = "stopped once"
            raise OSError("cable")
        return Observation(np.zeros(5), time.monotonic_ns(), reward=1.0)

    def act(self, action: np.ndarray) -> np.ndarray:
        self.called("act")
        return action

    def stop(self, reason: str) -> None:
        if self.at.startswith("stopped"):
            print("stopping", flush=True)  # as drivers do, to a terminal that may be gone
        self.called("stop")
        self.stopped.set()

    def close(self) -> None:
        self.called("close")


LIFE: list[LifeCycle] = []  # of this process


class RecordedLife(LifeCycle):
    """Writes its states to a file; events of states in which no method of the driver runs happen here."""

    arm: Arm

    def __init__(self) -> None:
        super().__init__()
        LIFE.append(self)

    def enter(self, state: State) -> State:
        left = super().enter(state)
        Path("states").write_text(" ".join(self.history))
        at = os.environ["AT"]
        if state == at in ("connected", "stopped") and self.history.count(state) == 1:
            happen(Arm("calls", at, os.environ["EVENT"], int(os.environ["NUMBER"])))
        return left


def happen(arm: Arm) -> None:
    """The event, once."""
    event, at = arm.event, arm.at
    arm.event = "nothing more"
    if event == "raises":
        raise OSError("port is gone")
    if event == "exits":
        raise SystemExit(3)
    if event == "hangs":
        threading.Timer(2 * HANGING, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        time.sleep(60)
    if event in ("signal", "signals"):
        if at == "stopped":  # while the person is asked
            threading.Timer(0.3, _signal, (arm,)).start()
        else:
            _signal(arm)
    if event == "disk":
        _fill_disk()
    if event == "deadman":
        os.environ["RELEASED"] = "1"
        Path("pedal").unlink()
    if event in ("disk", "deadman") and at == "preparing":  # it goes on homing until it is stopped
        arm.stopped.wait(5)


def _signal(arm: Arm) -> None:
    """Send it to this process, once or twice, and wait until it was heard."""
    for count in range(1, 3 if arm.twice else 2):
        os.kill(os.getpid(), arm.number)
        _until(lambda wanted=count: not LIFE or len(LIFE[0].signals) >= wanted)  # type: ignore[misc]
    if arm.at == "logged":
        time.sleep(0.3)  # it connects on
    if arm.at == "preparing" or (arm.at == "engaged" and arm.twice):
        arm.stopped.wait(5)


def _fill_disk() -> None:
    """The log's own small disk, where it is on one; else files may not grow any more, which fails alike."""
    if os.path.ismount("disk"):
        with open("disk/filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(1024)):
                pass
        return
    (log,) = Path("disk").glob("*.mcap")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, resource.RLIM_INFINITY))


def _until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.001)


def _hold_pedal() -> None:
    while not os.environ.get("RELEASED"):
        Path("pedal").touch()
        time.sleep(0.05)


def _sit_at(master: int, answers: list[bytes]) -> None:
    """A person at a terminal: sees what is printed, and answers each question."""
    with open("err", "wb", buffering=0) as seen, contextlib.suppress(OSError):
        shown = b""
        while part := os.read(master, 1000):
            seen.write(part)
            shown += part
            if answers and b"Type reset" in shown:
                time.sleep(0.1)
                os.write(master, answers.pop(0))
                shown = b""


def _standard_input(kind: str) -> None:
    if kind == "closed":
        os.close(0)
        sys.stdin = None  # type: ignore[assignment]
        return
    if kind in ("person", "silent"):
        master, slave = os.openpty()
        answers = [b"reset\n", b"no\n"] if kind == "person" else []
        threading.Thread(target=_sit_at, args=(master, answers), daemon=True).start()
        os.dup2(slave, 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    else:
        slave = os.open(os.devnull if kind == "nobody" else kind, os.O_RDONLY)
    os.dup2(slave, 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115


def run(folder: str, at: str, event: str, number: int = 0, stdin: str = "nobody") -> None:
    """Run it in `folder`, which then holds `calls`, `states`, `out`, `err` and `disk`; exits with its code."""
    os.chdir(folder)
    os.environ.update(AT=at, EVENT=event, NUMBER=str(number))
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    _standard_input(stdin)
    Path("pedal").touch()
    threading.Thread(target=_hold_pedal, daemon=True).start()
    seconds = HANGING if event == "hangs" else PATIENT
    robots.session.runner.HANGING_SECONDS = robots.session.runner.CLOSE_SECONDS = seconds
    robots.session.runner.LifeCycle = RecordedLife  # type: ignore[misc]
    from deploy.runtime.policy import OnnxPolicy

    OnnxPolicy.load = lambda *_, **__: Wave(Arm.spec)  # type: ignore[method-assign,assignment,return-value]
    settings = [f"calls={folder}/calls", f"at={at}", f"event={event}", f"number={number}"]
    command = ["run", "--robot", f"{__name__}:Arm", "--policy", "p.onnx", "--log", "disk", "--deadman", "pedal"]
    command += ["--episodes", str(EPISODES), "--steps", str(80 if event == "disk" else STEPS), "--engage", "0"]
    deadline, age = ("40", "100") if event == "hangs" else ("800", "800")  # periods
    command += ["--deadline", deadline, "--max-age", age]
    code = cli.main([*command, *(f"--set={each}" for each in settings)])
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(0.1 if os.isatty(2) else 0.0)  # for what reads the terminal
    os._exit(code)  # as the interpreter's end is another test's
