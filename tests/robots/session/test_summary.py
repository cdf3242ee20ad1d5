"""What a session says at its end."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from robots.divergence import Divergence
from robots.log import Statistics
from robots.session.lifecycle import LifeCycle
from robots.session.options import Result
from robots.session.summary import Report, live_line
from robots.session.turns import Turns
from robots.timing import TimingSummary

TIMING = TimingSummary(500, 80.0, 3, 0, 1, 14.2, 0.1, 1.0, 2.0, 0.2, {}, {})


def episode(number: int, success: bool | None, reason: str = "steps", **timing: Any) -> Result:
    return Result(number, 500, 10.0 * number, success, reason, False, replace(TIMING, **timing))


def report(*results: Result, speed: float = 1.0, **changes: Any) -> Report:
    alone: Any = SimpleNamespace(policy_id="")
    known = {"statistics": Statistics(1000, 0, 0), "shadow": None, "life": LifeCycle(), "turns": Turns(alone)}
    given: dict[str, Any] = {**known, **changes}
    return Report(Path("logs/a.mcap"), list(results), speed=speed, **given)


def test_by_the_wall_clock_a_line_has_success_with_its_interval_and_the_pace() -> None:
    # 8 of 10: Wilson (1927); the rate is that of all ticks over all seconds: 1000 / (500/80 + 500/40)
    two = report(episode(0, True), episode(1, False, rate_hz=40.0, worst_ms=20.0))
    assert two.text().splitlines() == [
        "success 0.50 [0.09, 0.91] of 2 episodes, mean return 5.0, 53.3 Hz, 6 of 1,000 ticks over budget, "
        "worst 20.00 ms",
        "log: logs/a.mcap, 1,000 rows",
    ]
    assert "success 0.80 [0.49, 0.94] of 10 episodes" in report(*(episode(e, e < 8) for e in range(10))).text()


def test_at_another_speed_what_a_tick_took_means_nothing() -> None:
    fast = report(episode(0, True, over_budget=500), speed=20.0)
    assert fast.text() == "success 1.00 [0.21, 1.00] of 1 episode, mean return 0.0\nlog: logs/a.mcap, 1,000 rows"
    assert "over budget" not in fast.table()
    assert "worst" not in fast.table()
    assert "500" in fast.table()
    assert "over budget" not in live_line(0, 1, 5, 500, 900.0, None, [], 0)


def test_the_worst_tick_and_a_persons_help_may_be_in_any_episode() -> None:
    first = replace(episode(4, True, "success", worst_ms=20.0), helped=True, discarded=True)
    said = report(first, episode(1, True, "terminated"), speed=1.0).text().splitlines()
    assert said == [
        "success 1.00 [0.21, 1.00] of 1 episode and 1 discarded, mean return 10.0, a person acted in 1, 80.0 Hz, "
        "6 of 1,000 ticks over budget, worst 20.00 ms",
        "log: logs/a.mcap, 1,000 rows",
    ]


def test_without_a_tick_there_is_no_pace() -> None:
    assert " Hz" not in report(episode(0, None, "SIGINT", ticks=0, rate_hz=0.0)).text()
    assert report(episode(0, True), speed=2.0).table().splitlines()[0].split("  ")[-1].strip() == "ended by"


def test_an_episode_without_a_tick_is_no_part_of_the_pace() -> None:
    none = episode(0, None, "SIGINT", ticks=0, rate_hz=0.0, over_budget=0, worst_ms=0.0)
    said = report(none, episode(1, True)).text()
    assert ", 80.0 Hz, 3 of 500 ticks over budget, worst 14.20 ms\n" in said


def test_what_a_person_discarded_counts_nowhere() -> None:
    two = [episode(0, True), replace(episode(9, False), discarded=True)]
    assert (
        report(*two, speed=20.0)
        .text()
        .startswith("success 1.00 [0.21, 1.00] of 1 episode and 1 discarded, mean return 0.0\n")
    )
    assert report(two[1], speed=20.0).text().startswith("0 episodes and 1 discarded, outcome unknown")
    assert "failure, discarded" in report(*two).table()
    assert "success 1/1" in live_line(2, 3, 5, 500, 80.0, 0, two, 0)


def test_the_rate_is_of_the_outcomes_that_are_known() -> None:
    said = report(episode(0, True), episode(1, None), episode(2, None), speed=20.0).text()
    assert said.startswith("success 1.00 [0.21, 1.00] of 1 episode, 2 of unknown outcome, mean return 10.0\n")
    discarded = replace(episode(3, False), discarded=True)
    said = report(episode(0, True), episode(1, True), episode(2, None), discarded, speed=20.0).text()
    assert said.startswith("success 1.00 [0.34, 1.00] of 2 episodes, 1 of unknown outcome and 1 discarded, mean return")


def test_what_went_wrong_is_said() -> None:
    text = report(
        episode(0, None, "terminated"), episode(1, None, "SIGINT"), statistics=Statistics(900, 90, 10),
        shadow=Divergence(900, 0.25, 0.5, missed=12),
    ).text()  # fmt: skip
    assert text.startswith("2 episodes, outcome unknown (say it with gipo-robot label), mean return 5.0, ")
    assert "\nepisode 1 ended by SIGINT\n" in text
    assert "episode 0 ended" not in text
    assert "\nshadow: 900 steps and 12 not scored, KL 0.25 nats, |Δ action| 0.5\n" in text
    assert text.endswith("log: logs/a.mcap, 900 rows, 90 dropped, 10 lost")
    assert report().text().startswith("no episode was run\n")


@pytest.mark.parametrize(("dropped", "shown"), [(0, ""), (3, "  dropped 3")])
def test_the_live_line(dropped: int, shown: str) -> None:
    line = live_line(2, 10, 40, 500, 79.96, 1, [episode(0, True), episode(1, None)], dropped)
    assert line == f"episode 3/10  step 40/500  80.0 Hz  over budget 1  success 1/1{shown}"


def test_before_an_outcome_is_known_the_live_line_has_no_success() -> None:
    assert live_line(0, 1, 5, 500, 80.0, 0, [episode(0, None)], 0) == "episode 1/1  step 5/500  80.0 Hz  over budget 0"


def test_the_table_has_a_row_for_each_episode() -> None:
    head, first, second = report(episode(0, True), episode(1, None, "SIGTERM")).table().splitlines()
    assert head.split("  ")[0] == "episode"
    assert "over budget" in head
    assert first.split() == ["0", "500", "0.0", "success", "80.0", "3", "1", "14.20", "steps"]
    assert second.split()[-1] == "SIGTERM"


def test_a_reason_is_one_line_and_drives_no_terminal() -> None:
    ended = report(episode(0, None, "observe failed: OSError: a\nb\x1b[31m"))
    assert "\nepisode 0 ended by observe failed: OSError: a b [31m\n" in ended.text()
    assert ended.table().endswith("observe failed: OSError: a b [31m")
