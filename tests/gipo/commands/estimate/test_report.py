"""What is concluded from estimates: by the one that knows most and still rests on enough episodes, or nothing."""

import math

import numpy as np
import pytest

from gipo.commands.estimate.estimators import LoggedEpisodes
from gipo.commands.estimate.report import BEST, answer, conclusion, rows, text

LEAST = 10.0


def episodes(spread: float, shift: float = 0.0, count: int = 60, decisions: int = 30) -> LoggedEpisodes:
    """Decisions whose log-ratios have this deviation, and rewards that go with the ratio by `shift`."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(count, decisions))
    x = spread * noise - spread**2 / 2  # so that ρ has mean 1
    reward = shift * noise + 0.1 * draw.normal(size=(count, decisions))
    return LoggedEpisodes(x, reward, np.zeros((count, decisions)))


def test_a_policy_nearby_is_told_by_all_decisions() -> None:
    found = rows(episodes(0.05, shift=1.0), LEAST)
    row = answer(found)
    assert row is not None
    assert row.estimator == BEST
    # E[(ρ − 1)·noise] = spread of each of 30 decisions
    assert row.difference.low < 30 * 0.05 < row.difference.high
    said = conclusion(found, "return", ".2f", LEAST)
    assert said.startswith(f"return: {row.difference.middle:+.2f} [{row.difference.low:+.2f}, ")
    assert said.endswith("by all decisions: more than they had")
    assert conclusion(rows(episodes(0.05, -1.0), LEAST), "return", ".2f", LEAST).endswith("less than they had")


def test_one_farther_off_by_the_last_decisions() -> None:
    found = rows(episodes(0.6, shift=1.0), LEAST)
    row = answer(found)
    assert row is not None
    assert row.estimator in ("last decision", "last 4 decisions")
    told = {each.estimator: each.told for each in found}
    assert told["observed"]
    assert not told[BEST]
    assert not told["last 16 decisions"]
    assert "trust the sign before the size" in conclusion(found, "return", ".2f", LEAST)


def test_one_too_far_off_by_nothing() -> None:
    found = rows(episodes(4.0), LEAST)
    assert answer(found) is None
    most = max(each.whole.episodes for each in found if each.answers)
    assert (
        f"these logs cannot tell. The policy is so far from those that acted that {most:.1f} effective"
        in conclusion(found, "success", ".2f", LEAST)
    )


def test_what_is_not_known_names_how_many_episodes_would_tell() -> None:
    found = rows(episodes(0.05), LEAST)
    row = answer(found)
    assert row is not None
    assert row.difference.low < 0 < row.difference.high
    said = conclusion(found, "return", ".2f", LEAST)
    half = row.difference.high - row.difference.middle
    needed = math.ceil(60 * (half / row.difference.middle) ** 2 / 10) * 10
    assert f"it may be either more or less; were it so much, some {needed:,} such episodes would tell" in said


def test_a_policy_against_itself_is_no_different() -> None:
    found = rows(episodes(0.0), LEAST)
    assert conclusion(found, "return", ".2f", LEAST).endswith("no difference that such figures show")


def test_the_table_has_no_interval_where_there_are_too_few_episodes() -> None:
    found = rows(episodes(0.6, shift=1.0), LEAST)
    lines = text(found, "return", ".2f").splitlines()
    assert len(lines) == 1 + len(found)
    for line, row in zip(lines[1:], found, strict=True):
        assert line.startswith(row.estimator)
        assert ("[" in line) == row.told


def test_windows_are_shorter_than_the_longest_episode() -> None:
    names = [row.estimator for row in rows(episodes(0.1, decisions=16), LEAST)]
    assert names[-3:] == [BEST, "last 4 decisions", "last decision"]
    assert [row.estimator for row in rows(episodes(0.1, decisions=1), LEAST)][-1] == BEST


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_episodes_are_no_fault(count: int) -> None:
    found = rows(episodes(0.1, count=count), least=0.5)
    assert (answer(found) is None) == (count == 1)


def test_records_are_of_every_figure() -> None:
    found = rows(episodes(0.1), LEAST)
    record = found[-1].record("success")
    assert record["measure"] == "success"
    assert (record["middle"], record["difference_high"]) == (found[-1].whole.middle, found[-1].difference.high)
    assert set(record) == {
        "measure", "estimator", "told", "answers", "middle", "low", "high", "episodes",
        "difference_middle", "difference_low", "difference_high",
    }  # fmt: skip
