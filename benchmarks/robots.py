"""The robot side: how much of a period a tick needs, and how fast logs are written and read."""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from deploy.runtime.policy import OnnxPolicy
from robots.drivers.sim import SimRobot
from robots.log import LogWriter, Session, Step, read_log
from robots.loop import ControlLoop
from robots.session.options import Options, Result

WRITE_BOUND, READ_BOUND = 20_000, 100_000  # steps a second
STALL_SECONDS = 5.0


def run_control_loop(episodes: int = 10, steps: int = 500) -> dict[str, Any]:
    """Simulated episodes at 80 Hz, then one whose disk stands still for five seconds."""
    with tempfile.TemporaryDirectory() as name:
        policy = default_policy(Path(name))
        clean, _ = _drive(policy, Path(name, "clean.mcap"), episodes, steps, os.fsync)
        stalled, writer = _drive(policy, Path(name, "stalled.mcap"), 1, 800, _Stall(at=10), capacity=64)
        log = read_log(writer.path)
    ran = sum(result.steps for result in stalled)
    kept = sum(map(len, log.episodes))
    timings = [result.timing for result in clean]
    own = sum(each.over_budget_by_log_or_gate for each in timings)
    stalled_own = sum(result.timing.over_budget_by_log_or_gate for result in stalled)
    waited = max(result.timing.worst_ms for result in stalled) > 1000 * STALL_SECONDS / 10
    counted = ran == kept + log.dropped == kept + writer.statistics.dropped
    return {
        "ticks": sum(each.ticks for each in timings),
        "rate_hz": float(np.mean([each.rate_hz for each in timings])),
        "work_p99_share": float(np.median([each.work_p99_share for each in timings])),
        "gate_p50_ms": float(np.median([each.section_p50_ms["gate"] for each in timings])),
        "log_p50_ms": float(np.median([each.section_p50_ms["log"] for each in timings])),
        "over_budget": sum(each.over_budget for each in timings),
        "over_budget_by_log_or_gate": own,
        "skipped": sum(each.skipped for each in timings),
        "stall_seconds": STALL_SECONDS,
        "stall_worst_ms": max(result.timing.worst_ms for result in stalled),
        "stall_over_budget_by_log_or_gate": stalled_own,
        "stall_dropped": writer.statistics.dropped,
        "stall_every_row_counted": counted,
        "bound": 1.0,
        "ok": own == stalled_own == 0 and not waited and counted and writer.statistics.dropped > 0,
    }


def run_log_write(steps: int = 60_000) -> dict[str, Any]:
    """Steps a second from the control thread to a synced file."""
    rows = _rows(steps)
    with tempfile.TemporaryDirectory() as name:
        rate, writer = _write(Path(name, "a.mcap"), rows)
        size = writer.path.stat().st_size
    return {
        "steps_per_s": rate,
        "bytes_per_step": size / steps,
        "bound": WRITE_BOUND,
        "ok": rate >= WRITE_BOUND,
    }


def run_log_read(steps: int = 60_000, repeats: int = 5) -> dict[str, Any]:
    """Steps a second from a file to checked columns; the best of some repeats, because others use the machine too."""
    with tempfile.TemporaryDirectory() as name:
        _, writer = _write(Path(name, "a.mcap"), _rows(steps))
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            log = read_log(writer.path)
            seconds.append(time.perf_counter() - start)
            assert sum(map(len, log.episodes)) == steps
    return {
        "steps_per_s": steps / min(seconds),
        "median_steps_per_s": steps / float(np.median(seconds)),
        "bound": READ_BOUND,
        "ok": steps / min(seconds) >= READ_BOUND,
    }


class _Stall:
    """A disk that answers at once, but for one sync of the log's thread."""

    def __init__(self, at: int):
        self._left = at

    def __call__(self, descriptor: int) -> None:
        if threading.current_thread().name == "log":
            self._left -= 1
            if self._left == 0:
                time.sleep(STALL_SECONDS)
        os.fsync(descriptor)


def _drive(
    policy: OnnxPolicy, path: Path, episodes: int, steps: int, sync: Any, capacity: int = 4096
) -> tuple[list[Result], LogWriter]:
    robot = SimRobot("reach-v3")
    robot.connect()
    manifest = policy.manifest
    writer = LogWriter(path, Session(robot.spec.to_json(), {policy.policy_id: manifest.to_json()}), capacity, sync=sync)
    # Deadlines as for a real robot would end the measurement at the first hiccup of a shared machine.
    loop = ControlLoop(robot, policy, writer, Options(steps=steps, deadline=50.0, max_age=60.0))
    results = [loop.run(episode, seed=episode) for episode in range(episodes)]
    loop.close()
    robot.close()
    writer.close()
    return results, writer


def _rows(count: int) -> list[Step]:
    """Steps of the simulated Sawyer under random commands."""
    robot = SimRobot("reach-v3", realtime=False)
    robot.connect()
    robot.prepare(0)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(500):
        seen.append(robot.observe().values.astype(np.float32))
        robot.act(rng.uniform(-1, 1, 4))
    rows = []
    for index in range(count):
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        rows.append(
            Step(
                episode=index // 500,
                step=index % 500,
                wall_ns=time.time_ns(),
                monotonic_ns=time.monotonic_ns(),
                observation=seen[index % 500],
                latent=rng.integers(0, 256, 4),
                action=action,
                sent_action=action.astype(float),
                log_prob=-rng.exponential(3, 4).astype(np.float32),
                policy_version=7,
                valid=True,
                reward=float(rng.random()),
                timing_us=(60, 700, 420, 110, 60, 20, 30),
            )
        )
    return rows


def _write(path: Path, rows: list[Step]) -> tuple[float, LogWriter]:
    writer = LogWriter(path, Session("{}"))
    start = time.perf_counter()
    for row in rows:
        while not writer.step(row):
            time.sleep(0.001)
    writer.close()
    return len(rows) / (time.perf_counter() - start), writer


def default_policy(folder: Path) -> OnnxPolicy:
    """A token policy of the default size with random weights."""
    import torch

    from deploy.export.artifact import export
    from gipo.common.simulators import metaworld
    from gipo.policies import Spaces, TokenPolicy

    policy = TokenPolicy(Spaces(len(metaworld.OBSERVATIONS), (-1.0,) * 4, (1.0,) * 4))
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    recorded = {"format": 1, "policy": policy.description(), "task": "reach-v3", "interface": metaworld.interface()}
    torch.save({"gipo": recorded, "state_dict": weights}, folder / "a.ckpt")
    export(folder / "a.ckpt", folder / "a.onnx")
    return OnnxPolicy.load(folder / "a.onnx")


if __name__ == "__main__":
    import json

    for benchmark in (run_log_write, run_log_read, run_control_loop):
        figures = benchmark()
        print(json.dumps({"benchmark": benchmark.__name__.removeprefix("run_"), **figures, "load": os.getloadavg()[0]}))
    sys.exit(0)
