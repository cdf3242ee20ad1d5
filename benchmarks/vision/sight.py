"""Learning from 100 000 logged steps of a robot with two cameras: memory, the second start, and samples a second.

The log is what a robot of two 128-pixel cameras leaves, one of which its policy sees, a PNG a frame; one episode of it
is really run, and repeated. A process of its own ingests it and post-trains on it, and says what memory it took.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict
from torch.utils.data import DataLoader

from datamodules.advantages import GAE
from datamodules.ingest import IngestOptions, ingest
from datamodules.replay.logged import LogReplay
from datamodules.replay.logs import Logs
from deploy.export.artifact import export
from deploy.runtime.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.common.checkpoint_head import CHECKPOINT_FORMAT
from gipo.common.simulators.toy import CAMERA, INSTRUCTION, picture
from gipo.module import GIPOModule
from gipo.vla.observations import VLASpaces
from gipo.vla.policies import VLATokenPolicy
from robots.drivers.toy import make_spec
from robots.log import Image, LogWriter, Session, Step
from robots.log.encoding import Encoders
from robots.log.images import png
from robots.log.video import CODECS

MEMORY, SECOND_START, READING = 2 << 30, 50.0, 3.0  # bytes; × the first start; × what the learner eats
CHUNK, EPISODE = 4, 500
STATE = 2
WAITING = 200  # rows
FILMS = 5  # of the same frames: the system counts a process's time in hundredths of a second


def run(steps: int = 100_000, pixels: int = 128, rounds: int = 8, batch: int = 64) -> dict[str, Any]:
    """Bytes of memory, ratios of both starts, and samples a second by processor time, of reading and of learning."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = make_policy(folder, pixels)
        log = write_log(folder / "a.mcap", policy, steps, pixels)
        figures = apart(folder, rounds, batch)
        sizes = {"log_mib": log.stat().st_size / 2**20, "bytes_a_frame": frame_bytes(pixels)}
    return {
        **figures, **sizes, "memory_bound_mib": MEMORY / 2**20, "second_start_bound": SECOND_START,
        "reading_bound": READING,
        "ok": figures["peak_mib"] * 2**20 <= MEMORY and figures["second_start_ratio"] >= SECOND_START
        and figures["reading_ratio"] >= READING,
    }  # fmt: skip


def apart(folder: Path, rounds: int, batch: int) -> dict[str, Any]:
    """What `learned` says in a process of its own, whose memory is that of nothing else."""
    code = (
        "import json, sys, torch\nfrom pathlib import Path\nfrom benchmarks.vision.sight import learned\n"
        "torch.set_num_threads(1)\n"
        "print(json.dumps(learned(Path(sys.argv[1]), *map(int, sys.argv[2:]))))"
    )
    words = [sys.executable, "-c", code, str(folder), str(rounds), str(batch)]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def learned(folder: Path, rounds: int, batch: int) -> dict[str, Any]:
    """Ingest, start again, and learn for an iteration: what it took."""
    options = IngestOptions(policies=folder, cache=folder / "cache", workers=1)
    first, second = (_seconds(folder, options) for _ in range(2))
    logs = Logs(str(folder / "a.mcap"), options, None, 0)
    policy = policy_from(load_checkpoint(folder / "policy.ckpt"))
    replay = LogReplay(logs.frames(policy, True), GAE(), seen=logs.seen)
    began = time.process_time()
    replay.refresh(policy)
    refreshed = time.process_time() - began
    began = time.process_time()
    batches = replay.sample(rounds, batch, int(policy.version))
    reading = batches.numel() / (time.process_time() - began)
    learning = batches.numel() / _learning(policy, batches)
    return {
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "first_start_s": first,
        "second_start_ratio": first / second,
        "refresh_s": refreshed,
        "decisions": len(replay),
        "read_samples_per_s": reading,
        "learned_samples_per_s": learning,
        "reading_ratio": reading / learning,
    }


def make_policy(folder: Path, pixels: int) -> OnnxPolicy:
    """A small policy over chunks with random weights, as a checkpoint and as an artifact."""
    torch.manual_seed(0)
    spaces = VLASpaces((3, pixels, pixels), STATE, (-1.0, -1.0), (1.0, 1.0), CHUNK)
    policy = VLATokenPolicy(spaces, bins=32)
    names = {"observation_names": ["a", "b"], "observation_units": ["1"] * 2, "action_names": ["x", "y"]}
    interface = names | {"action_units": ["1"] * 2, "control_rate_hz": 20.0}
    head = {"format": CHECKPOINT_FORMAT, "policy": policy.description(), "task": "toy", "interface": interface}
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    torch.save({"gipo": head, "state_dict": weights}, folder / "policy.ckpt")
    export(folder / "policy.ckpt", folder / "policy.onnx", observations=16)
    return OnnxPolicy.load(folder / "policy.onnx")


def write_log(path: Path, policy: OnnxPolicy, steps: int, pixels: int) -> Path:
    """A log of so many steps, episode after episode of `EPISODE` at the most."""
    length = min(EPISODE, steps)
    rows, frames = _episode(policy, length, pixels)
    spec = make_spec(policy.manifest)
    writer = LogWriter(path, Session(spec.to_json(), {policy.policy_id: policy.manifest.to_json()}))
    start = {"policy_id": policy.policy_id, "instruction": INSTRUCTION, "camera": CAMERA, "replan": 0}
    handed = 0
    for episode in range(steps // length):
        writer.event("episode_start", "", episode, 0, start)
        for step in range(length + 1):
            for camera in (CAMERA, "wrist"):
                image = Image(camera, time.time_ns(), time.monotonic_ns(), frames[camera][step], "png", episode, step)
                writer.image(image)
            if step < length:
                writer.step(replace(rows[step], episode=episode))
            handed += 2 + (step < length)
            while handed - writer.statistics.written > WAITING:  # the loop of a robot is slower, and never waits
                time.sleep(0.002)
        writer.event("episode_end", "steps", episode, length, {"final_observation": [0.0] * STATE})
    assert writer.close().dropped == 0
    return path


def _episode(policy: OnnxPolicy, length: int, pixels: int) -> tuple[list[Step], dict[str, list[bytes]]]:
    """What the policy samples while a target wanders, and what two cameras see of it."""
    rng = np.random.default_rng(0)
    state = rng.uniform(-1, 1, (length + 1, STATE)).astype(np.float32)
    target = np.cumsum(rng.normal(0, 0.02, (length + 1, 2)), 0).clip(-0.5, 0.5)
    seen = picture(target, state, (pixels, pixels)).astype(np.int16) + rng.integers(
        -3, 4, (length + 1, pixels, pixels, 3)
    )
    images = seen.clip(0, 255).astype(np.uint8)
    first = range(0, length, CHUNK)
    decisions = [policy.act(policy.row(state[step], images[step], INSTRUCTION), rng) for step in first]
    rows = []
    for step in range(length):
        decision, place = decisions[step // CHUNK], step % CHUNK
        parts = (decision.latent[place], decision.action[place], decision.action[place], decision.log_prob[place])
        times = (step, time.time_ns(), time.monotonic_ns())
        rows.append(
            Step(
                0, *times, state[step], *parts, policy.manifest.policy_version, True, float(rng.random()),
                truncated=step == length - 1, timing_us=(60, 700, 420, 110, 60, 20, 30), chunk_step=place,
            )
        )  # fmt: skip
    return rows, {CAMERA: [png(image) for image in images], "wrist": [png(image[::-1]) for image in images]}


def frame_bytes(pixels: int, count: int = 60) -> dict[str, float]:
    """Bytes and milliseconds of processor time that a frame takes as an image, and as video."""
    target = np.stack([np.linspace(-0.5, 0.5, count), np.zeros(count)], 1)
    frames = picture(target, -target, (pixels, pixels))
    found = {}
    began = time.process_time()
    found["png"] = float(np.mean([len(png(frame)) for frame in frames]))
    found["png_ms"] = 1000 * (time.process_time() - began) / count
    for codec in CODECS:
        found[codec], found[f"{codec}_ms"] = _as_video(codec, frames)
    return found


def _as_video(codec: str, frames: np.ndarray) -> tuple[float, float]:
    """Bytes and milliseconds of processor time that a frame takes in the process that encodes a session's cameras.

    SVT-AV1 can wait for ever, here too; where that process was replaced, it is measured anew.
    """
    replaced: list[str] = []
    encoders = Encoders(codec, replaced.append)
    process = psutil.Process(encoders.process.pid)
    began = _processor_seconds(process)
    films = [Image(CAMERA, 0, 0, frame, episode=film) for film in range(FILMS) for frame in frames]
    size = float(np.mean([len(encoders.frame(image)[0]) for image in films]))
    seconds = 0.0 if replaced else _processor_seconds(process) - began
    encoders.close()
    return _as_video(codec, frames) if replaced else (size, 1000 * seconds / len(films))


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _seconds(folder: Path, options: IngestOptions) -> float:
    began = time.perf_counter()
    store = ingest([folder / "a.mcap"], options, progress=False)
    assert store.album is not None
    return time.perf_counter() - began


def _learning(policy: Any, batches: TensorDict) -> float:
    """Seconds of processor time that an iteration over these batches takes."""
    module = GIPOModule(kl_coef=0.1)
    module.policy = policy
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False,
    )  # fmt: skip
    began = time.process_time()
    trainer.fit(module, DataLoader([batches], batch_size=None, collate_fn=lambda each: each))  # type: ignore[arg-type]
    return time.process_time() - began
