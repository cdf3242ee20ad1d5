"""What a session came to, for a terminal: the line while it runs, the lines at its end, the table on request."""

from dataclasses import dataclass
from pathlib import Path

from gipo.common.intervals import rate_with_interval
from gipo.common.tables import counted, outcome, pairs, table
from gipo.common.terminal import one_line
from robots.divergence import Divergence
from robots.log import Statistics
from robots.session.lifecycle import LifeCycle
from robots.session.options import Result
from robots.session.turns import Turns

ORDINARY = ("steps", "success", "terminated")  # reasons for which an episode is meant to end


@dataclass
class Report:
    """What a session came to.

    Args:
        path: of the log.
        results: of the episodes, in order.
        statistics: of the log.
        shadow: how far the policy that looked on would have acted otherwise; None without one.
        life: how the session came to its end.
        turns: whose the episodes are.
        speed: of the clock; only at 1 does the time that a tick took mean anything.
    """

    path: Path
    results: list[Result]
    statistics: Statistics
    shadow: Divergence | None
    life: LifeCycle
    turns: Turns
    speed: float

    def text(self) -> str:
        """A line of what came out, one of where it is logged; others only where there is something to say."""
        lines = self._went() if self.results else ["no episode was run"]
        lines += [f"episode {each.episode} ended by {one_line(each.reason)}" for each in self.results
                  if each.reason not in ORDINARY]  # fmt: skip
        if self.shadow is not None:
            lines.append(f"shadow: {self.shadow}")
        written, dropped, lost = self.statistics
        missing = [f"{count:,} {what}" for count, what in ((dropped, "dropped"), (lost, "lost")) if count]
        return "\n".join([*lines, f"log: {self.path}, {', '.join([f'{written:,} rows', *missing])}"])

    def table(self) -> str:
        """A row for each episode."""
        head = ["episode", *(["policy"] if self.turns.ids else []), "steps", "return", "outcome", "rate Hz", "ended by"]
        paced = self.speed == 1
        if paced:
            head[-1:] = ["over budget", "skipped", "worst ms", "ended by"]
        rows = []
        for result in self.results:
            t = result.timing
            pace = (t.over_budget, t.skipped, f"{t.worst_ms:.2f}") if paced else ()
            said = outcome(result.success) + ", discarded" * result.discarded
            rows.append((
                result.episode, *self.turns.roles(result.policy_id), result.steps, f"{result.total_reward:.1f}", said,
                f"{t.rate_hz:.1f}", *pace, result.reason,
            ))  # fmt: skip
        return table(head, rows)

    def _went(self) -> list[str]:
        """How the episodes went: of one policy in one line, of two in a line each, and how they compare."""
        pace = [self._pace()] if self.speed == 1 and any(each.timing.ticks for each in self.results) else []
        if not self.turns.ids:
            return [", ".join([_how(self.results), *pace])]
        sides = [(self.turns.roles(who)[0], f"{who[:12]}…  {_how([r for r in self.results if r.policy_id == who])}")
                 for who in self.turns.ids]  # fmt: skip
        paired = self.turns.paired(self.results)
        return [*pairs([*sides, *paired.rows]).splitlines(), paired.conclusion, *pace]

    def _pace(self) -> str:
        timings = [result.timing for result in self.results]
        ticks, over = sum(t.ticks for t in timings), sum(t.over_budget for t in timings)
        seconds = sum(t.ticks / t.rate_hz for t in timings if t.ticks)
        return (
            f"{ticks / seconds:.1f} Hz, {over:,} of {ticks:,} ticks over budget, "
            f"worst {max(t.worst_ms for t in timings):.2f} ms"
        )


def _how(results: list[Result]) -> str:
    """Success, mean return, and in how many episodes a person acted, in words."""
    known, kept = outcomes(results), [result.total_reward for result in results if not result.discarded]
    told = len(known) or len(kept)
    count = counted(told, "episode")
    count += f", {len(kept) - told} of unknown outcome" if told < len(kept) else ""
    count += f" and {len(results) - len(kept)} discarded" if len(kept) < len(results) else ""
    success = (
        f"success {rate_with_interval(sum(known), len(known))} of {count}"
        if known else f"{count}, outcome unknown (say it with gipo-robot label)"
    )  # fmt: skip
    helped = sum(result.helped for result in results)
    mean = [f"mean return {sum(kept) / len(kept):.1f}"] if kept else []
    return ", ".join([success, *mean, *([f"a person acted in {helped}"] if helped else [])])


def outcomes(results: list[Result]) -> list[bool]:
    """The successes and failures that are known, of episodes that count."""
    return [result.success for result in results if result.success is not None and not result.discarded]


def live_line(episode: int, episodes: int, step: int, steps: int, rate_hz: float, over_budget: int | None,
              results: list[Result], dropped: int) -> str:  # fmt: skip
    """Where a session stands; `over_budget` None where the clock is not the wall's."""
    known = outcomes(results)
    parts = [f"episode {episode + 1}/{episodes}", f"step {step}/{steps}", f"{rate_hz:.1f} Hz"]
    parts += [] if over_budget is None else [f"over budget {over_budget}"]
    parts += [f"success {sum(known)}/{len(known)}"] if known else []
    parts += [f"dropped {dropped}"] if dropped else []
    return "  ".join(parts)
