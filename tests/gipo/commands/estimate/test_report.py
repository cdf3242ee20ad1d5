"""What is concluded from estimates: by the one that knows most and still rests on enough episodes, or nothing."""

import math
import re

import numpy as np
import pytest

from gipo.commands.estimate.estimators import LoggedEpisodes
from gipo.commands.estimate.report import BEST, Measure, Row

LEAST = 10.0


def episodes(spread: float, shift: float = 0.0, count: int = 60, decisions: int = 30) -> LoggedEpisodes:
    """Decisions whose log-ratios have this deviation, and rewards that go with the ratio by `shift`."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(count, decisions))
    x = spread * noise - spread**2 / 2  # so that ρ has mean 1
    reward = shift * noise + 0.1 * draw.normal(size=(count, decisions))
    return LoggedEpisodes(x, reward, np.zeros((count, decisions)))


def of(found: LoggedEpisodes, most: float | None = None, least: float = LEAST) -> Measure:
    return Measure("return", found, 0.5, least, most)


def answered(measure: Measure) -> Row:
    assert measure.answer is not None
    return measure.answer


def test_a_policy_nearby_is_told_by_all_decisions() -> None:
    found = of(episodes(0.05, shift=1.0))
    row = answered(found)
    assert row.estimator == BEST
    # E[(ρ − 1)·noise] = spread of each of 30 decisions
    assert row.difference.low < 30 * 0.05 < row.difference.high
    said = found.conclusion()
    assert said.startswith(f"return: {row.difference.middle:+.1f} [{row.difference.low:+.1f}, ")
    assert said.endswith("by all decisions: more than they had")
    assert of(episodes(0.05, -1.0)).conclusion().endswith("less than they had")


def test_one_farther_off_by_the_last_decisions() -> None:
    found = of(episodes(0.6, shift=1.0))
    assert answered(found).estimator in ("last decision", "last 4 decisions")
    told = {each.estimator: each.told for each in found.rows}
    assert told["observed"]
    assert not told[BEST]
    assert not told["last 16 decisions"]
    assert found.conclusion().endswith("more than they had. That earlier decisions lead elsewhere is not in it: trust "
                                       "the sign before the size")  # fmt: skip


def test_where_the_last_decisions_leave_the_sign_open_nothing_is_to_be_trusted() -> None:
    found = of(episodes(0.6, shift=0.0))
    assert answered(found).estimator != BEST
    assert found.conclusion().endswith("it may be either more or less")


def test_one_too_far_off_by_nothing() -> None:
    found = of(episodes(4.0))
    assert found.answer is None
    most = max(each.whole.episodes for each in found.rows if each.answers)
    assert f"return: these logs cannot tell: of 60 episodes {most:.1f} effective ones are left" in found.conclusion()


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_what_was_the_same_in_every_episode_tells_nothing(reward: float) -> None:
    """Twenty failures do not show that another policy fails, however near it is."""
    found = episodes(0.01)
    rewards = np.zeros_like(found.reward)
    rewards[:, -1] = reward
    measure = of(found._replace(reward=rewards), most=1.0)
    assert measure.answer is None
    assert "these logs cannot tell: it was the same in every episode" in measure.conclusion()
    assert "[" not in measure.text()


def test_what_is_not_known_names_how_many_episodes_would_tell() -> None:
    found = of(episodes(0.05))
    row = answered(found)
    assert row.difference.low < 0 < row.difference.high
    half = row.difference.high - row.difference.middle
    needed = math.ceil(60 * (half / row.difference.middle) ** 2 * (2.8 / 1.96) ** 2 / 10) * 10
    said = f"it may be either more or less; were it so much, some {needed:,} such episodes would tell in four of five"
    assert said in found.conclusion()


def test_as_many_episodes_as_it_says_tell_in_four_of_five_cases() -> None:
    """Of a normal difference of one deviation/√25: 25·(1.96)²·… = 196 episodes."""
    draw = np.random.default_rng(0)
    told = np.mean([(x := draw.normal(0.2, 1, 196)).mean() > 1.96 * x.std(ddof=1) / 14 for _ in range(4_000)])
    assert told == pytest.approx(0.8, abs=0.02)
    assert pytest.approx(196) == 25 * (1.96 / (0.2 * 5)) ** 2 * (2.8 / 1.96) ** 2


def test_a_policy_against_itself_is_no_different() -> None:
    assert of(episodes(0.0)).conclusion().endswith("by all decisions: no difference")


def test_a_difference_far_below_what_returns_spread_is_one_where_it_is_known() -> None:
    assert of(episodes(1e-4, shift=1.0)).conclusion().endswith("by all decisions: more than they had")


def test_a_small_middle_with_a_wide_interval_is_no_sameness() -> None:
    found = episodes(0.3)
    measure = of(found._replace(reward=1000 * found.reward))
    assert "no difference" not in measure.conclusion()


def test_figures_have_the_digits_of_their_scale() -> None:
    found = episodes(0.05, shift=1.0)
    for factor in (1e-12, 1e-4, 1.0, 1e5, 1e12):
        measure = of(found._replace(reward=factor * found.reward))
        row = answered(measure)
        shown = float(measure.conclusion().split()[1])
        assert shown == pytest.approx(row.difference.middle, rel=0.2)
        assert measure.conclusion().endswith("more than they had")


def test_a_share_may_fall() -> None:
    found = episodes(0.05, shift=-1.0)
    rewards = np.zeros_like(found.reward)
    rewards[:, -1] = found.to_go[:, 0] > 0
    measure = of(found._replace(reward=rewards), most=1.0)
    row = answered(measure)
    assert row.difference.high < 0
    assert measure.conclusion().startswith(f"return: {row.difference.middle:+.2f} [{row.difference.low:+.2f}, ")


def test_shares_stay_between_none_and_all() -> None:
    found = episodes(1.2)
    rewards = np.zeros_like(found.reward)
    rewards[::2, -1] = 1
    lines = of(found._replace(reward=rewards), most=1.0, least=2.0).text().splitlines()
    shares = [figure for line in lines[1:-3] if "[" in line for figure in map(float, re.findall(r"-?\d\.\d\d", line))]
    assert min(shares) >= -1
    assert max(shares) <= 1


def test_the_table_has_no_figures_where_there_are_too_few_episodes() -> None:
    found = of(episodes(0.6, shift=1.0))
    lines = found.text().splitlines()
    for line, row in zip(lines[1:], found.rows, strict=False):
        assert line.startswith(row.estimator)
        assert ("[" in line) == row.told
        assert ("–" in line) != row.told
    assert lines[-3] == "(the baseline explains 50% of what followed a decision)"


def test_windows_are_shorter_than_the_longest_episode() -> None:
    names = [row.estimator for row in of(episodes(0.1, decisions=16)).rows]
    assert names[-3:] == [BEST, "last 4 decisions", "last decision"]
    assert [row.estimator for row in of(episodes(0.1, decisions=1)).rows][-1] == BEST


def test_records_are_of_every_figure() -> None:
    row = of(episodes(0.1)).rows[-1]
    record = row.record("success")
    assert record["measure"] == "success"
    assert (record["middle"], record["difference_high"]) == (row.whole.middle, row.difference.high)
    assert set(record) == {
        "measure", "estimator", "told", "answers", "middle", "low", "high", "episodes",
        "difference_middle", "difference_low", "difference_high",
    }  # fmt: skip
