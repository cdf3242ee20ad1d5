"""Artifacts for a small robot, and logs of what they really sampled."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.ingest import IngestOptions, Store, ingest
from deploy.export.artifact import export
from deploy.runtime.acting import ActingPolicy
from gipo.networks import SeparateNetworks
from gipo.policies import Policy, Spaces, TokenPolicy
from robots.log import LogWriter, Session, Step
from robots.spec import RobotSpec
from tests.robots.builders import make_spec

BINS = 16
Change = Callable[[int, list[Step]], None]


def artifact(path: Path, kind: type[Policy] = TokenPolicy, **options: Any) -> Path:
    """A policy with random weights for the robot of `make_spec`, version 7."""
    spec = make_spec()
    torch.manual_seed(0)
    spaces = Spaces(spec.observation_size, spec.action_low, spec.action_high)
    policy = kind(spaces, network=lambda i, o: SeparateNetworks(i, o, hidden=(16,)), **options)
    policy.version.fill_(7)
    keys = ("observation_names", "observation_units", "action_names", "action_units")
    names: dict[str, Any] = {key: list(getattr(spec, key)) for key in keys}
    interface = names | {"control_rate_hz": spec.control_rate_hz}
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    recorded = {"format": 1, "policy": policy.description(), "task": "fake", "interface": interface}
    torch.save({"gipo": recorded, "state_dict": weights}, path.with_suffix(".ckpt"))
    export(path.with_suffix(".ckpt"), path)
    return path


def rows_of(policy: ActingPolicy, episode: int, steps: int, seed: int = 0) -> list[Step]:
    """What the loop would log: the first two steps while it is given control, the last one terminated if odd."""
    rng = np.random.default_rng([seed, episode])
    seen = rng.standard_normal((steps, policy.manifest.observation_size)).astype(np.float32)
    chosen = policy.act(seen, rng)
    return [
        Step(
            episode=episode,
            step=t,
            wall_ns=t,
            monotonic_ns=t,
            observation=seen[t],
            latent=chosen.latent[t],
            action=chosen.action[t],
            sent_action=chosen.action[t].astype(float) * (0.5 if t < 2 else 1 / 3),
            log_prob=chosen.log_prob[t],
            policy_version=policy.manifest.policy_version,
            valid=t >= 2,
            reward=float(np.float32(rng.random())),
            terminated=t == steps - 1 and episode % 2 == 1,
            truncated=t == steps - 1 and episode % 2 == 0,
            timing_us=(0,) * 7,
            chunk_step=t % 3,
            source="policy" if t >= 2 else "hold",
        )
        for t in range(steps)
    ]


def write_log(
    path: Path,
    policies: Sequence[ActingPolicy],
    steps: Sequence[int] = (12, 9, 15),
    seed: int = 0,
    spec: RobotSpec | None = None,
    change: Change = lambda episode, rows: None,
    policy_id: str | None = None,
    named: Sequence[ActingPolicy] | None = None,
    ended: bool | None = True,
    noise: str = "",
) -> Path:
    """One episode for each number of steps, the policies in turn.

    Args:
        path: new file.
        policies: that act.
        steps: of each episode.
        seed: of what is seen and sampled.
        spec: of the robot.
        change: of an episode's rows before they are logged; a row taken out leaves a gap.
        policy_id: that the log claims instead of the true one.
        named: policies whose manifests the log holds.
        ended: False where the last command of every episode still waited for its observation, as after a stop; None
            where the log does not say that any ended.
        noise: where the log says that it came from, with the number of the episode behind it; empty for nowhere.
    """
    manifests = {each.policy_id: each.manifest.to_json() for each in (policies if named is None else named)}
    session = Session((spec or make_spec()).to_json(), manifests, {"task": "put it there"})
    writer = LogWriter(path, session, capacity=100 + sum(steps))
    for episode, count in enumerate(steps):
        policy = policies[episode % len(policies)]
        rows = rows_of(policy, episode, count, seed)
        final = np.random.default_rng([seed, episode, 1]).standard_normal(len(rows[0].observation)).astype(np.float32)
        start = {"policy_id": policy_id or policy.policy_id, **({"noise": f"{noise}{episode}"} if noise else {})}
        writer.event("episode_start", "", episode, 0, start)
        change(episode, rows)
        for row in rows:
            writer.step(row)
        if episode % 3:
            writer.event("outcome", "", episode, count, {"success": episode % 3 == 1})
        if ended is not None:
            last = final.tolist() if ended else None
            writer.event("episode_end", "steps", episode, count, {"final_observation": last})
    writer.close()
    return path


def write_persons(path: Path, steps: Sequence[int] = (5, 5, 5)) -> Path:
    """A log of a person who drove without a policy, one episode for each number of steps."""
    spec = make_spec()
    writer, nothing = LogWriter(path, Session(spec.to_json())), np.zeros(spec.action_size)
    for episode, count in enumerate(steps):
        writer.event("episode_start", "", episode, 0, {})
        for t in range(count):
            seen = np.full(spec.observation_size, episode, np.float32)
            action = np.full(spec.action_size, t / 10, np.float32)
            writer.step(Step(episode, t, t, t, seen, nothing, action, action.astype(float), nothing, 0, valid=False,
                             truncated=t == count - 1, source="person"))  # fmt: skip
        writer.event("episode_end", "steps", episode, count, {"final_observation": [0.0] * spec.observation_size})
    writer.close()
    return path


def drop(path: Path, policy: ActingPolicy, declared: bool) -> Path:
    """A log of one episode of 12 steps that lacks steps 4 to 6, and says so or does not."""
    writer = LogWriter(path, Session(make_spec().to_json(), {policy.policy_id: policy.manifest.to_json()}))
    rows = rows_of(policy, 0, 12)
    writer.event("episode_start", "", 0, 0, {"policy_id": policy.policy_id})
    for row in rows[:4]:
        writer.step(row)
    if declared:
        writer.event("dropped", "the queue was full", 0, 6, {"count": 3, "first": (0, 4), "last": (0, 6)})
    for row in rows[7:]:
        writer.step(row)
    writer.event("outcome", "", 0, 12, {"success": True})
    writer.event("episode_end", "steps", 0, 12, {"final_observation": rows[0].observation.tolist()})
    writer.close()
    return path


def store_of(*sources: Path, cache: Path, **options: Any) -> Store:
    """Everything audited, one worker, unless told otherwise."""
    return ingest(sources, IngestOptions(cache=cache, **{"audit": 1.0, "workers": 1, **options}), progress=False)


def assert_equal_frames(a: Store, b: Store) -> None:
    """Bit for bit, all keys."""
    keys = set(a.frames.keys(True, True))
    assert keys == set(b.frames.keys(True, True))
    for key in keys:
        mine, theirs = a.frames[key].numpy(), b.frames[key].numpy()
        assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), key
