"""The episodes of the policies that are compared: what each was begun from, how it went, and which do not count."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gipo.common.intervals import rate_with_interval
from gipo.common.transition import PERSON
from robots.log import Episode, labels_path, read_logs

# Of an episode, under which both of a pair are to act.
SETTINGS = (
    "robot", "spec", "camera", "set", "task", "steps", "deterministic", "instruction", "operator", "operator_set",
    "end_on_success", "end_on_label", "engage_seconds", "replan", "speed", "deadline", "max_age",
)  # fmt: skip
NOBODY = "nobody names"
AGAIN = "begun again from a seed that was driven (go on with --first)"  # such as a copy of it, in simulation

Beginning = tuple[str, int]  # the session where the two of a pair must be of one, else empty; and the seed


@dataclass(frozen=True)
class Driven:
    """An episode that counts.

    Args:
        success: whether it succeeded.
        returned: its return.
        ended_ns: when it ended, since the epoch.
        helped: whether a person acted in it.
        settings: each of SETTINGS, in words.
    """

    success: bool
    returned: float
    ended_ns: int
    helped: bool
    settings: tuple[str, ...]

    @classmethod
    def of(cls, episode: Episode, session: dict[str, Any]) -> "Driven":
        """An episode of a log that has an outcome and an end, and what its session was asked for."""
        end = (episode.event("episode_end") or {}).get("wall_ns")
        ended = end if type(end) is int else 0
        # What an episode says of itself is nearer to it than what its session was asked for.
        settings = tuple(str((session | episode.start).get(name)) for name in SETTINGS)
        helped = bool((episode["source"] == PERSON).any()) or episode.event("takeover") is not None
        return cls(bool(episode.success), episode.total, ended, helped, settings)


@dataclass
class Side:
    """What one policy did.

    Args:
        policy_id: whose episodes these are.
        episodes: those that count, by what they were begun from.
        sessions: of which they are.
        left: how many do not count, by the reason.
        unused: which labels of its logs say nothing, in words.
    """

    policy_id: str
    episodes: dict[Beginning, Driven] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    left: dict[str, int] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def take(self, episode: Episode, where: str, session: dict[str, Any]) -> None:
        """Count an episode, or why it does not."""
        seed: Any = episode.start.get("seed")
        reasons = {
            "of no known seed": type(seed) is not int,
            "discarded": episode.discarded,
            "without an end": not episode.complete or not len(episode),
            "of unknown outcome": episode.success is None,
        }
        if reason := next((reason for reason, holds in reasons.items() if holds), None):
            self.leave(reason)
            return
        one, before = Driven.of(episode, session), self.episodes.get((where, seed))
        if before is None or one.ended_ns < before.ended_ns:
            self.episodes[where, seed] = one
        if before is not None:
            self.leave(AGAIN)

    def leave(self, reason: str) -> None:
        """Count an episode that does not count."""
        self.left[reason] = self.left.get(reason, 0) + 1

    def text(self, starts: Sequence[Beginning]) -> str:
        """The policy, and the rate of its successes from the given starts, in words."""
        some = [self.episodes[start] for start in starts]
        rate = rate_with_interval(sum(each.success for each in some), len(some))
        said = [f"{self.policy_id[:12]}…  success {rate}, {_mean_return([each.returned for each in some])}"]
        alone = len(self.episodes) - len(some)
        said += [f"{alone} begun by it alone"] * bool(alone)
        return "; ".join([*said, *(f"{count} {reason}" for reason, count in self.left.items())])

    def seeds(self) -> str:
        """The seeds of the episodes that count, and why others do not, in words."""
        seeds = sorted(seed for _, seed in self.episodes)
        known = f"{len(seeds)} from seeds {seeds[0]} to {seeds[-1]}" if seeds else "none counts"
        return "; ".join([known, *(f"{count} {reason}" for reason, count in self.left.items())])


def read_sides(logs: Iterable[Path], together: bool) -> tuple[dict[str, Side], dict[str | Path, Any]]:
    """What each policy did, by its id; and of each log the two that drive in turns, as `Header.turns` has them.

    Args:
        logs: to be read.
        together: whether the two of a pair must be of one session.

    Raises:
        UserError: when a log cannot be read.
    """
    found: dict[str, Side] = {}
    turns: dict[str | Path, Any] = {}
    for path, log in read_logs(logs):
        turns[path] = log.header.turns
        session = {"spec": _spec(log.header.robot)} | log.header.settings
        for episode in log.begun:
            who = episode.policy_id or NOBODY
            one = found.setdefault(who, Side(who))
            one.sessions.add(log.header.session)
            one.take(episode, log.header.session if together else "", session)
        if log.unused_labels:
            for who in {episode.policy_id or NOBODY for episode in log.begun}:
                found[who].unused.append(f"{labels_path(path)}: {log.unused_labels}")
    return found, turns


def _mean_return(returns: Sequence[float]) -> str:
    """The mean of those returns that are numbers, in words; a robot may log a reward that is none."""
    known = [each for each in returns if math.isfinite(each)]
    if len(known) == len(returns):
        return f"mean return {np.mean(known):.1f}"
    mean = f"{np.mean(known):.1f}" if known else "unknown"
    return f"mean return {mean} ({len(returns) - len(known)} of {len(returns)} have a reward that is not finite)"


def _spec(robot: dict[str, Any]) -> str:
    """The name and the rate of a robot, and the beginning of a hash of all that its spec says."""
    digest = hashlib.sha256(json.dumps(robot, sort_keys=True).encode()).hexdigest()
    return f"{robot.get('name')}, {robot.get('control_rate_hz')} Hz, {digest[:6]}"
