"""From robot logs to a store: steps a second, how much faster the second start is, and what memory it takes."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robots import default_policy
from datamodules.ingest import IngestOptions, ingest
from datamodules.ingest.pipeline import Plan
from deploy.runtime.policy import OnnxPolicy
from robots.drivers import sim
from robots.log import LogWriter, Session, Step

RATE_BOUND, SECOND_START_BOUND = 100_000, 50.0
MEMORY = 24 << 20  # bytes that an ingest may take beyond what the process had before it
STACK = 512 << 10  # bytes of address space that each thread counts for, touched or not
EPISODE = 500


def run(logs: int = 4, steps: int = 100_000, memory_steps: int = 150_000, repeats: int = 5) -> dict[str, Any]:
    """Several sessions of the default policy, each in a log as the robot writes it; the best of some repeats.

    With the audit as it is by default, of every step, and of none; and one log larger than the memory allowed. The rate
    by processor time is what the cores would give if nothing else used them; what starts and ends alone counts double.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = default_policy(folder)
        rows = _rows(policy, steps)
        for index in range(logs):
            _write(folder / f"{index}.mcap", policy, rows, steps, index)
        sources = [folder / f"{index}.mcap" for index in range(logs)]
        rates, processor_rates, ratios = [], [], []
        for repeat in range(repeats):
            options = IngestOptions(cache=folder / f"cache-{repeat}", audit=IngestOptions.audit)
            before = _processor_seconds()
            first = _seconds(sources, options)
            processor_rates.append((os.cpu_count() or 1) * logs * steps / (_processor_seconds() - before))
            second = _seconds(sources, options)
            rates.append(logs * steps / first)
            ratios.append(first / second)
        whole, none = (
            logs * steps / _seconds(sources, IngestOptions(cache=folder / f"audit-{audit}", audit=audit))
            for audit in (1.0, 0.0)
        )
        log = _write(folder / "large.mcap", policy, rows, memory_steps, logs)
        size, within = log.stat().st_size, _within_limit(log)
    return {
        "steps_per_s": max(rates),
        "median_steps_per_s": float(np.median(rates)),
        "processor_time_steps_per_s": float(np.median(processor_rates)),
        "audit_share": IngestOptions.audit,
        "full_audit_steps_per_s": whole,
        "no_audit_steps_per_s": none,
        "second_start_ratio": float(np.median(ratios)),
        "cores": os.cpu_count(),
        "memory_limit_mib": MEMORY / 2**20,
        "log_mib": size / 2**20,
        "within_memory_limit": within,
        "bound": RATE_BOUND,
        "second_start_bound": SECOND_START_BOUND,
        "ok": max(rates) >= RATE_BOUND and min(ratios) >= SECOND_START_BOUND and within and size > MEMORY,
    }


def make_limited(log: str, cache: str) -> None:
    """Make the store of one log in this process, which may take MEMORY bytes more than it has now."""
    status = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData")) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY,) * 2)
    plan = Plan([Path(log)], IngestOptions(cache=cache, workers=1))
    work = Path(cache, "work")
    work.mkdir()
    plan.make(work, Path(cache, "store"), progress=False)


def _within_limit(log: Path) -> bool:
    # The network's own tensors are the artifact's, whatever the log: one inference takes them before the limit falls.
    # The limit counts the stack of a thread whole, 8 MiB by default: two threads of libraries would be most of it.
    code = (
        "import sys, numpy, datamodules.ingest.pipeline, datamodules.ingest.store\n"
        "from benchmarks.ingest import make_limited\nfrom deploy.runtime.policy import OnnxPolicy\n"
        "policy = OnnxPolicy.load(sys.argv[3])\n"
        "policy.act(numpy.zeros((500, policy.manifest.observation_size)), numpy.random.default_rng(0))\n"
        "make_limited(*sys.argv[1:3])"
    )
    cache = log.parent / "limited"
    shell = f'ulimit -Ss {STACK >> 10} && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", code, log, cache, log.parent / "a.onnx"],
        cwd=Path(__file__).parents[1],
    )
    return done.returncode == 0 and (cache / "store" / "store.json").is_file()


def _seconds(sources: list[Path], options: IngestOptions) -> float:
    start = time.perf_counter()
    store = ingest(sources, options, progress=False)
    seconds = time.perf_counter() - start
    assert store.facts.skipped == ()
    return seconds


def _processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _rows(policy: OnnxPolicy, steps: int) -> list[Step]:
    """What the policy samples for the simulated Sawyer's observations, with noise on them so that no two are equal."""
    robot = sim.SimRobot("reach-v3", realtime=False)
    robot.connect()
    robot.prepare(0)
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(EPISODE):
        seen.append(robot.observe().values.astype(np.float32))
        robot.act(rng.uniform(-1, 1, 4))
    observations = np.tile(np.array(seen), (-(-steps // EPISODE), 1))[:steps]
    observations += rng.normal(0, 1e-3, observations.shape).astype(np.float32)
    chosen = policy.act(observations, rng)
    return [
        Step(
            episode=index // EPISODE,
            step=index % EPISODE,
            wall_ns=time.time_ns(),
            monotonic_ns=time.monotonic_ns(),
            observation=observations[index],
            latent=chosen.latent[index],
            action=chosen.action[index],
            sent_action=chosen.action[index].astype(float),
            log_prob=chosen.log_prob[index],
            policy_version=policy.manifest.policy_version,
            valid=True,
            reward=float(rng.random()),
            truncated=index % EPISODE == EPISODE - 1,
            timing_us=(60, 700, 420, 110, 60, 20, 30),
        )
        for index in range(steps)
    ]


def _write(path: Path, policy: OnnxPolicy, rows: list[Step], steps: int, created: int) -> Path:
    """A session of `steps` steps, the rows again and again; each tells its own moment, so no two are equal."""
    spec = sim.SimRobot("reach-v3").spec
    session = Session(spec.to_json(), {policy.policy_id: policy.manifest.to_json()}, {"session": created})
    writer = LogWriter(path, session)
    for number, start in enumerate(range(0, steps, EPISODE)):
        writer.event("episode_start", "", number, 0, {"policy_id": policy.policy_id})
        first = start % (len(rows) - len(rows) % EPISODE)
        chosen = list(islice(rows, first, first + min(EPISODE, steps - start)))
        for row in chosen:
            copy = Step(**{name: getattr(row, name) for name in Step.__slots__} | {"episode": number})
            while not writer.step(copy):
                time.sleep(0.001)
        final = chosen[0].observation.tolist()
        writer.event("episode_end", "steps", number, len(chosen), {"final_observation": final})
    writer.close()
    return path
