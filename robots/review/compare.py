"""`gipo-robot compare`: whether a candidate succeeds more often than the deployed policy, from pairs of episodes.

A pair is two episodes that were begun alike, from the same seed, so that what both share is in no interval. That of the
difference holds at every look: one may drive some pairs, look, and stop as soon as it tells.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gipo.common.errors import UserError
from gipo.common.intervals import rate_with_interval
from gipo.common.tables import pairs
from gipo.common.transition import PERSON
from robots.log import Episode, read_logs
from robots.review.paired import Paired

# Of a session, under which both sides are to act.
SETTINGS = (
    "robot", "spec", "camera", "set", "task", "steps", "deterministic", "instruction", "operator", "operator_set",
    "end_on_success", "end_on_label", "engage_seconds", "replan", "speed", "deadline", "max_age",
)  # fmt: skip
AGAIN = "begun again from a seed that was driven (go on with --first)"  # such as a copy of it, in simulation
ABSENT = ("None", "[]", "")  # settings that say nothing, however they say it


@dataclass(frozen=True)
class Driven:
    """An episode that counts.

    Args:
        success: whether it succeeded.
        returned: its return.
        ended_ns: when it ended, since the epoch.
        known_ns: when how it went was known: then, or when it was labelled.
        helped: whether a person acted in it.
    """

    success: bool
    returned: float
    ended_ns: int
    known_ns: int
    helped: bool

    @classmethod
    def of(cls, episode: Episode) -> "Driven":
        """An episode of a log that has an outcome and an end."""
        said = (episode.event("episode_end") or {}).get("wall_ns")
        ended = said if type(said) is int else 0
        label = episode.label
        known = ended if label is None or label.success is None else max(ended, label.wall_ns)
        helped = bool((episode["source"] == PERSON).any())
        return cls(bool(episode.success), episode.total, ended, known, helped)


@dataclass
class Side:
    """What one policy did.

    Args:
        policy_id: whose episodes these are.
        episodes: those that count, by the seed that they were begun from.
        sessions: of which they are.
        settings: of the sessions, in words.
        left: how many do not count, by the reason.
    """

    policy_id: str
    episodes: dict[int, Driven] = field(default_factory=dict)
    sessions: set[str] = field(default_factory=set)
    settings: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in SETTINGS})
    left: dict[str, int] = field(default_factory=dict)

    def take(self, episode: Episode) -> None:
        """Count an episode, or why it does not."""
        seed: Any = episode.start.get("seed")
        reasons = {
            "of no known seed": type(seed) is not int,
            "discarded": episode.discarded,
            "without an end": not episode.complete or not len(episode),
            "of unknown outcome": episode.success is None,
        }
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        if reason is None:
            one, before = Driven.of(episode), self.episodes.get(seed)
            if before is None or one.ended_ns < before.ended_ns:
                self.episodes[seed] = one
            reason = None if before is None else AGAIN
        if reason is not None:
            self.left[reason] = self.left.get(reason, 0) + 1

    def text(self, seeds: Sequence[int]) -> str:
        """The policy, and the rate of its successes from the given seeds, in words."""
        some = [self.episodes[seed] for seed in seeds]
        rate = rate_with_interval(sum(each.success for each in some), len(some))
        said = [f"{self.policy_id[:12]}…  success {rate}, mean return {np.mean([each.returned for each in some]):.1f}"]
        helped, alone = sum(each.helped for each in some), len(self.episodes) - len(some)
        said += [f"a person acted in {helped}"] * bool(helped) + [f"{alone} begun by it alone"] * bool(alone)
        return "; ".join([*said, *(f"{count} {reason}" for reason, count in self.left.items())])


@dataclass(frozen=True)
class Comparison:
    """A candidate against the deployed policy, from the seeds that both were begun from.

    Args:
        deployed: what the deployed policy did.
        candidate: what the candidate did.
        seeds: of the pairs, in the order in which they became known.
        paired: how the two differ in each of them.
    """

    deployed: Side
    candidate: Side
    seeds: list[int]
    paired: Paired

    def text(self) -> str:
        """How the two did, and what may be concluded."""
        lines = [
            ("deployed", self.deployed.text(self.seeds)),
            ("candidate", self.candidate.text(self.seeds)),
            *self.paired.rows,
            *(("note", note) for note in self._notes()),
        ]
        return f"{pairs(lines)}\n{self.paired.conclusion}"

    def _notes(self) -> list[str]:
        here, there = self.deployed.settings, self.candidate.settings
        said = [f"{name} {_words(here[name])} and {_words(there[name])}" for name in SETTINGS
                if here[name] != there[name]]  # fmt: skip
        notes = [f"they were not driven alike: {'; '.join(said)}"] * bool(said)
        return notes + ["both are the same policy"] * (self.deployed.policy_id == self.candidate.policy_id)


def compare(deployed: Iterable[Path], candidate: Iterable[Path] | None = None) -> Comparison:
    """Pairs of the episodes in the logs of two policies.

    Args:
        deployed: logs of the one.
        candidate: logs of the other; None where the two drove in turns, in the sessions of `deployed`.

    Raises:
        UserError: when a log cannot be read, a side is not of one policy, both have a session, or nothing is paired.
    """
    sides = in_turns(deployed) if candidate is None else (side("deployed", deployed), side("candidate", candidate))
    if candidate is not None and (twice := sorted(sides[0].sessions & sides[1].sessions)):
        raise UserError(f"both sides hold the session {twice[0]}; name logs of two")
    before, after = (each.episodes for each in sides)
    known = {seed: max(before[seed].known_ns, after[seed].known_ns) for seed in before.keys() & after.keys()}
    seeds = sorted(known, key=lambda seed: (known[seed], seed))
    if not seeds:
        raise UserError(f"nothing can be paired: {_seeds(sides[0])} deployed, {_seeds(sides[1])} of the candidate")
    difference = np.array([float(after[seed].success) - before[seed].success for seed in seeds])
    return Comparison(*sides, seeds, Paired.of(difference))


def side(name: str, logs: Iterable[Path]) -> Side:
    """The episodes of the one policy that acted in logs.

    Raises:
        UserError: when a log cannot be read, or they are of several policies, or of none.
    """
    found, _ = _read(logs)
    if len(found) != 1:
        raise UserError(f"the {name} logs must be of one policy, and are of {_named(found)}; name its logs alone")
    return next(iter(found.values()))


def in_turns(logs: Iterable[Path]) -> tuple[Side, Side]:
    """The episodes of the deployed policy and of the candidate, in sessions in which they drove in turns.

    Raises:
        UserError: when a log cannot be read, is of no such session, or they are of other policies, too.
    """
    found, turns = _read(logs)
    if alone := [log for log, each in turns.items() if each is None]:
        raise UserError(f"no two policies drive in turns in {alone[0]}; name the logs of each of the two")
    together = sorted(set(filter(None, turns.values())))
    if len(together) != 1 or not found.keys() <= set(together[0]):
        named = _named({*found, *(each for two in together for each in two)})
        raise UserError(f"the logs must be of one policy and one candidate, and are of {named}; name theirs alone")
    deployed, candidate = (found.get(each, Side(each)) for each in together[0])
    return deployed, candidate


def _read(logs: Iterable[Path]) -> tuple[dict[str, Side], dict[str | Path, tuple[str, str] | None]]:
    """What each policy did, by its id; and of each log the two that drive in turns, deployed and candidate, if any."""
    found: dict[str, Side] = {}
    turns: dict[str | Path, tuple[str, str] | None] = {}
    for path, log in read_logs(logs):
        turns[path] = log.header.turns
        session = {"spec": _spec(log.header.robot)} | log.header.settings
        for episode in log.begun:
            who = episode.policy_id or "nobody names"
            one = found.setdefault(who, Side(who))
            one.sessions.add(log.header.session)
            # What an episode says of itself is nearer to it than what its session was asked for.
            said = session | episode.start
            for setting in SETTINGS:
                one.settings[setting].add(str(said.get(setting)))
            one.take(episode)
    return found, turns


def _named(policies: Iterable[str]) -> str:
    return ", ".join(f"{who[:12]}…" for who in sorted(policies)) or "none"


def _spec(robot: dict[str, Any]) -> str:
    """The name and the rate of a robot, and the beginning of a hash of all that its spec says."""
    digest = hashlib.sha256(json.dumps(robot, sort_keys=True).encode()).hexdigest()
    return f"{robot.get('name')}, {robot.get('control_rate_hz')} Hz, {digest[:6]}"


def _words(said: set[str]) -> str:
    return " or ".join(sorted("none" if each in ABSENT else each for each in said))


def _seeds(one: Side) -> str:
    """The seeds of the episodes of a side that count, and why others do not, in words."""
    seeds = sorted(one.episodes)
    known = f"{len(seeds)} from seeds {seeds[0]} to {seeds[-1]}" if seeds else "none counts"
    return "; ".join([known, *(f"{count} {reason}" for reason, count in one.left.items())])
