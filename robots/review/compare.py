"""`gipo-robot compare`: whether a candidate succeeds more often than the deployed policy, from pairs of episodes.

A pair is two episodes that were begun alike, from the same seed, so that what both share is in no interval. That of the
difference holds at every look: one may drive some pairs, look, and stop as soon as it tells.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gipo.common.errors import UserError
from gipo.common.tables import pairs
from robots.review.paired import Paired
from robots.review.sides import AGAIN, SETTINGS, Beginning, Side, read_sides

ABSENT = ("None", "[]", "")  # settings that say nothing, however they say it
CHANGING = "the mean of all pairs is outside of its interval: is the robot changing, or the starts?"


@dataclass(frozen=True)
class Comparison:
    """A candidate against the deployed policy, from the starts that both were begun from.

    Args:
        deployed: what the deployed policy did.
        candidate: what the candidate did.
        starts: of the pairs, in the order in which they were driven: one that hung on how they went, as the order in
            which a person labels them may, would tell a difference where there is none.
        paired: how the two differ in each of them.
    """

    deployed: Side
    candidate: Side
    starts: list[Beginning]
    paired: Paired

    def text(self) -> str:
        """How the two did, and what may be concluded."""
        lines = [
            ("deployed", self.deployed.text(self.starts)),
            ("candidate", self.candidate.text(self.starts)),
            *self.paired.rows,
            *(("note", note) for note in [*self.doubts, *self._same(), *self._unused()]),
        ]
        return f"{pairs(lines)}\n{self.paired.conclusion}"

    @property
    def doubts(self) -> list[str]:
        """Why a difference may be that of something else than the two policies, in words."""
        both = [(self.deployed.episodes[start], self.candidate.episodes[start]) for start in self.starts]
        said = []
        for number, name in enumerate(SETTINGS):
            values = [(here.settings[number], there.settings[number]) for here, there in both]
            if unlike := [each for each in values if each[0] != each[1]]:
                here, there = ({each[side] for each in unlike} for side in (0, 1))
                said.append(f"{name} {_words(here)} and {_words(there)}")
        doubts = [f"they were not driven alike: {'; '.join(said)}"] * bool(said)
        helped = [sum(pair[side].helped for pair in both) for side in (0, 1)]
        if any(helped):
            doubts.append(
                f"a person acted in {helped[0]} episodes of the deployed policy, {helped[1]} of the candidate"
            )
        return doubts + [CHANGING] * self.paired.changing

    def _same(self) -> list[str]:
        return ["both are the same policy"] * (self.deployed.policy_id == self.candidate.policy_id)

    def _unused(self) -> list[str]:
        """Labels that were given and say nothing: where two drove in turns, both have them."""
        return list(dict.fromkeys([*self.deployed.unused, *self.candidate.unused]))


def compare(deployed: Iterable[Path], candidate: Iterable[Path] | None = None) -> Comparison:
    """Pairs of the episodes in the logs of two policies.

    Args:
        deployed: logs of the one.
        candidate: logs of the other; None where the two drove in turns, in the sessions of `deployed`, and a pair is
            of one session.

    Raises:
        UserError: when a log cannot be read, a side is not of one policy, both have a session, or nothing is paired.
    """
    sides = in_turns(deployed) if candidate is None else (side("deployed", deployed), side("candidate", candidate))
    if candidate is not None and (twice := sorted(sides[0].sessions & sides[1].sessions)):
        raise UserError(f"both sides hold the session {twice[0]}; name logs of two")
    before, after = (each.episodes for each in sides)
    driven = {start: max(before[start].ended_ns, after[start].ended_ns) for start in before.keys() & after.keys()}
    starts: dict[int, Beginning] = {}
    for start in sorted(driven, key=lambda start: (driven[start], start[1])):
        if starts.setdefault(start[1], start) != start:  # another session has driven it, too
            for each in sides:
                del each.episodes[start]
                each.leave(AGAIN)
    if not starts:
        raise UserError(f"nothing can be paired: {sides[0].seeds()} deployed, {sides[1].seeds()} of the candidate")
    difference = np.array([float(after[start].success) - before[start].success for start in starts.values()])
    return Comparison(*sides, list(starts.values()), Paired.of(difference))


def side(name: str, logs: Iterable[Path]) -> Side:
    """The episodes of the one policy that acted in logs.

    Raises:
        UserError: when a log cannot be read, or they are of several policies, or of none.
    """
    found, turns = read_sides(logs, together=False)
    if len(found) != 1:
        two = next((log for log, each in turns.items() if each), None)
        advice = "name its logs alone" if two is None else f"two drove in turns in {two}: name such logs alone"
        raise UserError(f"the {name} logs must be of one policy, and are of {_named(found)}; {advice}")
    return next(iter(found.values()))


def in_turns(logs: Iterable[Path]) -> tuple[Side, Side]:
    """The episodes of the deployed policy and of the candidate, in sessions in which they drove in turns.

    Raises:
        UserError: when a log cannot be read, is of no such session, or they are of other policies, too.
    """
    found, turns = read_sides(logs, together=True)
    if alone := [log for log, each in turns.items() if each is None]:
        raise UserError(
            f"no two policies drive in turns in {alone[0]}; name one log or folder of the policy in place, and one of "
            "the candidate"
        )
    together = sorted(set(turns.values()))
    if len(together) != 1 or not found.keys() <= set(together[0]):
        named = _named({*found, *(each for two in together for each in two)})
        raise UserError(f"the logs must be of one policy and one candidate, and are of {named}; name theirs alone")
    deployed, candidate = (found.get(each, Side(each)) for each in together[0])
    return deployed, candidate


def _named(policies: Iterable[str]) -> str:
    return ", ".join(f"{who[:12]}…" for who in sorted(policies)) or "none"


def _words(said: set[str]) -> str:
    return " or ".join(sorted("none" if each in ABSENT else each for each in said))
