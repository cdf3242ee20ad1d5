"""What a session came to, for a terminal: the line while it runs, the lines at its end, the table on request."""

from dataclasses import dataclass
from pathlib import Path

from gipo.common.intervals import rate_with_interval
from gipo.common.tables import outcome, table
from gipo.common.terminal import one_line
from robots.divergence import Divergence
from robots.log import Statistics
from robots.session.lifecycle import LifeCycle
from robots.session.options import Result

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
        speed: of the clock; only at 1 does the time that a tick took mean anything.
    """

    path: Path
    results: list[Result]
    statistics: Statistics
    shadow: Divergence | None
    life: LifeCycle
    speed: float = 1.0

    def text(self) -> str:
        """A line of what came out, one of where it is logged; others only where there is something to say."""
        pace = [self._pace()] if self.speed == 1 and any(each.timing.ticks for each in self.results) else []
        lines = [", ".join([self._success(), *self._mean_return(), *pace] if self.results else
                           ["no episode was run"])]  # fmt: skip
        lines += [f"episode {each.episode} ended by {one_line(each.reason)}" for each in self.results
                  if each.reason not in ORDINARY]  # fmt: skip
        if self.shadow is not None:
            lines.append(f"shadow: {self.shadow}")
        written, dropped, lost = self.statistics
        missing = [f"{count:,} {what}" for count, what in ((dropped, "dropped"), (lost, "lost")) if count]
        return "\n".join([*lines, f"log: {self.path}, {', '.join([f'{written:,} rows', *missing])}"])

    def table(self) -> str:
        """A row for each episode."""
        head = ["episode", "steps", "return", "outcome", "rate Hz", "ended by"]
        paced = self.speed == 1
        if paced:
            head[-1:] = ["over budget", "skipped", "worst ms", "ended by"]
        rows = []
        for result in self.results:
            t = result.timing
            pace = (t.over_budget, t.skipped, f"{t.worst_ms:.2f}") if paced else ()
            said = outcome(result.success) + ", discarded" * result.discarded
            rows.append((result.episode, result.steps, f"{result.total_reward:.1f}", said, f"{t.rate_hz:.1f}", *pace,
                         result.reason))  # fmt: skip
        return table(head, rows)

    def _success(self) -> str:
        known, kept = outcomes(self.results), sum(not result.discarded for result in self.results)
        count = f"{kept} episode{'s' * (kept != 1)}"
        count += f" and {len(self.results) - kept} discarded" if kept < len(self.results) else ""
        if not known:
            return f"{count}, outcome unknown (say it with gipo-robot label)"
        return f"success {rate_with_interval(sum(known), len(known))} of {count}"

    def _mean_return(self) -> list[str]:
        kept = [result.total_reward for result in self.results if not result.discarded]
        return [f"mean return {sum(kept) / len(kept):.1f}"] if kept else []

    def _pace(self) -> str:
        timings = [result.timing for result in self.results]
        ticks, over = sum(t.ticks for t in timings), sum(t.over_budget for t in timings)
        seconds = sum(t.ticks / t.rate_hz for t in timings if t.rate_hz)
        return (
            f"{ticks / max(seconds, 1e-9):.1f} Hz, {over:,} of {ticks:,} ticks over budget, "
            f"worst {max(t.worst_ms for t in timings):.2f} ms"
        )


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
