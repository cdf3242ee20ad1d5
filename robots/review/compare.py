"""`gipo-robot compare`: whether a candidate succeeds more often than the deployed policy, from pairs of episodes.

A pair is two episodes that were begun alike, with the same seed and number, so that what both share is in no interval.
That of the difference holds at every look: one may drive some pairs, look, and stop as soon as it tells.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gipo.common.errors import UserError
from gipo.common.intervals import difference_with_interval, rate_with_interval
from gipo.common.tables import pairs
from robots.log import Episode, Log, find_logs, read_logs
from robots.review.confidence_sequence import confidence_sequence

SETTINGS = ("robot", "set", "steps", "deterministic", "instruction", "end_on_success")  # under which both are to act
Start = tuple[int, int]  # with what it was begun, seed and number together; and which of those begun so it is


@dataclass(frozen=True)
class Side:
    """What one policy did.

    Args:
        policy_id: whose episodes these are.
        episodes: whether they succeeded and what they returned, by how they were begun, in the order of driving.
        sessions: names of them.
        settings: of its sessions, in words.
        unjudged: episodes of which nobody said whether they succeeded.
        left_out: episodes that are discarded, or of which the log does not see the end.
    """

    policy_id: str
    episodes: dict[Start, tuple[bool, float]]
    sessions: frozenset[str]
    settings: dict[str, str]
    unjudged: int
    left_out: int

    def text(self, starts: Sequence[Start]) -> str:
        """The policy, and the rate of its successes on the given starts, in words."""
        won, returned = zip(*(self.episodes[start] for start in starts), strict=True)
        rate = rate_with_interval(sum(won), len(starts))
        return f"{self.policy_id[:12]}…  success {rate}, mean return {sum(returned) / len(starts):.1f}"


def side(named: str | Path) -> Side:
    """The episodes of the one policy that acted in a log, or in those of a folder.

    Raises:
        UserError: when a log cannot be read, or they are of several policies, or of none.
    """
    logs = list(read_logs(find_logs([named])[0]))
    logs.sort(key=lambda found: found[1].header.created)
    episodes = [episode for _, log in logs for episode in log.begun]
    names = sorted({episode.policy_id or "one that nobody names" for episode in episodes})
    if len(names) != 1:
        found = ", ".join(name[:12] for name in names) or "none"
        raise UserError(f"{named} must hold episodes of one policy, and holds those of {found}; name its logs alone")
    whole = [episode for episode in episodes if episode.complete and len(episode) and not episode.discarded]
    judged = [episode for episode in whole if episode.success is not None]
    return Side(
        names[0],
        _by_start(judged),
        frozenset(log.header.session for _, log in logs),
        _settings(log for _, log in logs),
        len(whole) - len(judged),
        len(episodes) - len(whole),
    )


def _by_start(episodes: Iterable[Episode]) -> dict[Start, tuple[bool, float]]:
    """Success and return of each episode, by how it was begun; episodes begun alike are told apart by their order."""
    found: dict[Start, tuple[bool, float]] = {}
    times: Counter[int] = Counter()
    for episode in episodes:
        seed = episode.start.get("seed")
        begun = (seed if type(seed) is int else 0) + episode.number
        found[begun, times[begun]] = bool(episode.success), episode.total
        times[begun] += 1
    return found


def _settings(logs: Iterable[Log]) -> dict[str, str]:
    said = [log.header.settings for log in logs]
    return {name: ", ".join(sorted({str(each.get(name)) for each in said})) for name in SETTINGS}


def compare(deployed: str | Path, candidate: str | Path) -> str:
    """How the two did on the starts that both had, and what may be concluded.

    Raises:
        UserError: when a log cannot be read, a side is not of one policy, both have a session, or nothing is paired.
    """
    ours, theirs = side(candidate), side(deployed)
    if twice := sorted(ours.sessions & theirs.sessions):
        raise UserError(f"{deployed} and {candidate} hold the same session, {twice[0]}; name logs of two")
    starts = [start for start in ours.episodes if start in theirs.episodes]
    if not starts:
        raise UserError(
            "no episode of the one was begun as one of the other, and ended with an outcome; drive both with the same "
            "--seed and --first, and say how they went (gipo-robot label)"
        )
    difference = np.array([float(ours.episodes[start][0]) - theirs.episodes[start][0] for start in starts])
    looks = confidence_sequence(difference, -1, 1)
    lines = [("deployed", theirs.text(starts)), ("candidate", ours.text(starts))]
    lines += [("pairs", _counted(difference, ours, theirs))]
    lines += [("difference", difference_with_interval(float(difference.mean()), *looks[-1].tolist()))]
    unlike = [f"{name} {theirs.settings[name]} and {ours.settings[name]}" for name in SETTINGS
              if theirs.settings[name] != ours.settings[name]]  # fmt: skip
    lines += [("note", f"they were not driven alike: {'; '.join(unlike)}")] * bool(unlike)
    return f"{pairs(lines)}\n{_conclusion(looks)}"


def _counted(difference: np.ndarray, *sides: Side) -> str:
    """How the pairs went, and what is in none."""
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    said = [f"{len(difference):,}: only the candidate succeeded in {better}, only the deployed in {worse}"]
    alone = sum(len(each.episodes) for each in sides) - 2 * len(difference)
    for count, what in (
        (alone, "begun by one alone"),
        (sum(each.unjudged for each in sides), "of unknown outcome"),
        (sum(each.left_out for each in sides), "discarded or without an end"),
    ):
        said += [f"{count} episodes {what}"] * bool(count)
    return "; ".join(said)


def _conclusion(looks: np.ndarray) -> str:
    for told, word in ((looks[:, 0] > 0, "more"), (looks[:, 1] < 0, "less")):
        if told[-1]:
            return f"the candidate succeeds {word} often: known after {int(np.argmax(told)) + 1} pairs"
    if np.isnan(looks[-1, 0]):
        return "no difference agrees with all pairs: they are not draws of one kind (is the robot changing?)"
    return "not yet known: drive more pairs, and look again, as often as you like"
