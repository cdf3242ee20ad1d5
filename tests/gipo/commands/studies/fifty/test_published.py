"""The runs that are published: rows and text are what the study makes of what every run left behind."""

import csv
import json
import re
import tarfile
from pathlib import Path
from statistics import median

import pytest

from gipo.commands.studies.fifty.entrants import DEFAULT, Entry, by_lot
from gipo.commands.studies.fifty.record import read_result
from gipo.commands.studies.fifty.study import all_tasks
from gipo.commands.studies.fifty.tables import GOOD, Row, by_task, report, row_of, scores, summary
from gipo.commands.studies.pipeline.forks import FIT
from gipo.commands.studies.pipeline.versions import OneVersion
from gipo.commands.studies.run_tables import distinct
from gipo.commands.studies.statistics import (
    Array,
    improvement_interval,
    iqm_difference_interval,
    paired_interval,
)
from gipo.common.intervals import difference_with_interval, with_interval

DOCS = Path(__file__).parents[5] / "docs"
FRAMES, EVERY = 120_000, 10_000
# The recipe beside SB3's PPO, beside other objectives in the same recipe, and beside SAC on tasks that the lot drew.
TABLES = ("fifty.csv", "fifty_objectives.csv", "fifty_sac.csv")
OURS, THEIRS, SAC = DEFAULT[0], "SB3 PPO", "SBX SAC"
RIVALS = ("PPO-Clip", "SAPO")  # in the same recipe


def published(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader((DOCS / "data" / table).read_text().splitlines()))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every run left behind."""
    folder = tmp_path_factory.mktemp("fifty")
    with tarfile.open(DOCS / "data" / "fifty_runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def rows(kept: Path) -> dict[str, list[Row]]:
    """The published rows of each table, made anew."""
    return {
        table: [made_anew(Entry(row["entrant"], row["task"], int(row["seed"])), kept) for row in published(table)]
        for table in TABLES
    }


def made_anew(one: Entry, kept: Path) -> Row:
    return row_of(one, read_result(kept / one.folder), FRAMES, one.command(FRAMES, EVERY, []))


def test_every_run_that_was_made_is_told(kept: Path) -> None:
    told = {Entry(row["entrant"], row["task"], int(row["seed"])).folder for table in TABLES for row in published(table)}
    assert told == {path.parent.relative_to(kept) for path in kept.glob("*/*/result.json")}
    assert f"All {len(told)} runs have been made" in (DOCS / "fifty.md").read_text()


def test_the_study_goes_on_from_what_is_kept(kept: Path) -> None:
    """Every run of ours has its configuration, and all are of one version, or the study would refuse them."""
    version, ours = OneVersion(), sorted(kept.glob(f"*/*/{FIT}.done.json"))
    for done in ours:
        version.add(done.parent, json.loads(done.read_text()))
    made = {path.parent for path in kept.glob("*/*/result.json")}
    assert {done.parent for done in ours} == {
        folder for folder in made if folder.parent.name not in {name.replace(" ", "-") for name in (THEIRS, SAC)}
    }


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_made_of_its_run(table: str, rows: dict[str, list[Row]]) -> None:
    for row, each in zip(rows[table], published(table), strict=True):
        assert {name: str(value) for name, value in row.items()} == each


def test_the_text_is_made_of_the_rows(rows: dict[str, list[Row]]) -> None:
    text = (DOCS / "fifty.md").read_text()
    assert report(rows["fifty.csv"]) in text
    for side in ("developed on", "held out"):
        assert summary([row for row in rows["fifty_objectives.csv"] if row["side"] == side]) in text


@pytest.mark.parametrize("table", TABLES)
def test_an_entrant_ran_with_every_seed_and_where_the_first_one_did(table: str) -> None:
    runs = [(row["entrant"], row["task"], row["seed"]) for row in published(table)]
    seeds = {row["seed"] for row in published(table)}
    ran = {(entrant, task) for entrant, task, _ in runs}
    assert sorted(runs) == sorted((entrant, task, seed) for entrant, task in ran for seed in seeds)
    assert {task for _, task in ran} == {task for entrant, task in ran if entrant == OURS}


def test_what_is_said_in_words_follows_from_the_rows(rows: dict[str, list[Row]]) -> None:
    text = " ".join((DOCS / "fifty.md").read_text().split())
    every = rows["fifty.csv"]
    held = [row for row in every if row["side"] == "held out"]
    ours, theirs = of(held, OURS), of(held, THEIRS)
    mine, other = ours.mean(1).round(9), theirs.mean(1).round(9)
    last = [of(held, name, "success_last").mean() for name in (OURS, THEIRS)]
    higher = with_interval(*paired_interval(mine - other), "+.2f")
    assert (
        f"any-step success after 120 000 steps is {two(mine.mean())} in the mean, of SB3's PPO {two(other.mean())}: "
        f"{short(higher)} over tasks; at the last step {two(last[0])} and {two(last[1])}." in text
    )
    whole = [two(of(every, name).mean()) for name in (OURS, THEIRS)]
    assert f"With the 12 developed on, all 50 come to {whole[0]} and {whole[1]}" in text
    probability = short(with_interval(*improvement_interval(ours, theirs)))
    better, level = int((mine > other).sum()), int((mine == other).sum())
    zero = int(((mine == other) & (mine == 0)).sum())
    assert (
        "A run of the recipe succeeds more often than one of SB3's PPO on the same task with probability "
        f"{probability}; its mean is higher on {better}, level on {level} ({zero} of them at 0), lower on "
        f"{len(mine) - better - level}. "
        f"It reaches .9 on {int((mine >= GOOD).sum())}, SB3's PPO on {int((other >= GOOD).sum())}." in text
    )
    first, second = seconds(held, OURS), seconds(held, THEIRS)
    both = first.keys() & second.keys()
    tasks, times = len({task for task, _ in both}), median(second[run] / first[run] for run in both)
    assert (
        f"{len(first)} of the {ours.size} runs of the recipe reach .9 in an evaluation, {len(second)} of SB3's PPO. "
        f"Where both do so with the same seed ({len(both)} pairs, on {tasks} tasks), SB3's takes {times:.1f} times as "
        "long in the median, in processor seconds" in text
    )
    by_run = {(row["entrant"], row["task"], row["seed"]): row["seconds"] for row in every}
    slower = [value / by_run[entrant, task, 22] for (entrant, task, seed), value in by_run.items() if seed != 22]
    assert f"where a run took {median(slower):.1f} times as long in the median" in text
    assert f"{sum(by_run.values()) / 3600:.1f} processor hours of training" in text
    ends = f"higher on {better}, level on {level} ({zero} of them at 0), lower on {len(mine) - better - level}"
    assert (
        f"three seeds each: {two(mine.mean())}, against {two(other.mean())} for Stable-Baselines3's PPO at one "
        f"setting, not tuned: {short(higher)} over tasks; {ends}" in (DOCS.parent / "README.md").read_text()
    )
    evidence = f"three seeds each: {two(mine.mean())}, by SB3's PPO {two(other.mean())}, {short(higher)} over tasks"
    assert evidence in (DOCS / "evidence.md").read_text()
    neither = [task for task, *means in zip(distinct(held, "task"), mine, other, strict=True) if max(means) < 0.5]
    assert f"{len(neither)} neither brings to .5: {', '.join(f'`{task}`' for task in neither)}." in text


def test_how_other_objectives_do_in_the_same_recipe_follows_from_the_rows(rows: dict[str, list[Row]]) -> None:
    text = " ".join((DOCS / "fifty.md").read_text().split())
    every = rows["fifty_objectives.csv"]
    for count, side in ((38, "held out"), (12, "developed on")):
        inside = [row for row in every if row["side"] == side]
        own = two(of(inside, OURS).mean())
        assert f"On the {count} {side}, any-step success is {own} in the mean with the recipe's own objective" in text
        for rival in RIVALS:
            assert beside(inside, rival) in text


def test_what_is_concluded_of_other_objectives_follows_from_the_rows(rows: dict[str, list[Row]]) -> None:
    every = rows["fifty_objectives.csv"]
    held, developed = ([row for row in every if row["side"] == side] for side in ("held out", "developed on"))
    own, clip, sapo = (of(held, name) for name in (OURS, *RIVALS))
    for inside in (held, developed):  # from PPO-Clip no difference is shown
        _, low, high = paired_interval(of(inside, OURS).mean(1) - of(inside, "PPO-Clip").mean(1))
        assert low < 0 < high
        _, low, high = improvement_interval(of(inside, OURS), of(inside, "PPO-Clip"))
        assert low < 0.5 < high
        assert paired_interval(of(inside, OURS).mean(1) - of(inside, "SAPO").mean(1))[1] > 0
    assert improvement_interval(own, sapo)[1] > 0.5
    assert two(improvement_interval(of(developed, OURS), of(developed, "SAPO"))[1]) == ".50"

    text = " ".join((DOCS / "fifty.md").read_text().split())
    theirs = of([row for row in rows["fifty.csv"] if row["side"] == "held out"], THEIRS)
    assert f"On the 38 it is ahead of SB3's PPO by {ahead(clip, theirs)} over tasks" in text
    last = [of(held, name, "success_last") for name in (OURS, "PPO-Clip")]
    by_iqm = signed(difference_with_interval(*iqm_difference_interval(*last)))
    assert (
        f"At the last step the IQM of the recipe's own is higher by {by_iqm}, but the mean by {ahead(*last)} and the "
        f"probability {short(with_interval(*improvement_interval(*last)))} leave it open." in text
    )

    means = [two(each.mean()) for each in (own, clip, sapo)]
    for page, said in {
        "../README.md": f"PPO-Clip {means[1]}, from which no difference is shown, {ahead(own, clip)}; SAPO {means[2]}, "
        f"{ahead(own, sapo)}.",
        "evidence.md": f"PPO-Clip {means[1]}, {ahead(own, clip)}, SAPO {means[2]}, {ahead(own, sapo)}",
        "limits.md": f"with PPO-Clip in its place no difference is shown, {ahead(own, clip)} on the 38 held out",
        "objectives.md": f"On 38 other tasks success is {means[0]} with the width that won there, PPO-Clip {means[1]}, "
        f"from which no difference is shown, SAPO {means[2]}",
    }.items():
        assert said in (DOCS / page).read_text()


def test_what_is_said_of_sac_follows_from_the_rows(rows: dict[str, list[Row]]) -> None:
    every, page = rows["fifty_sac.csv"], (DOCS / "fifty.md").read_text()
    text = " ".join(page.split())
    drawn = by_lot(all_tasks(), len(distinct(every, "task")), seed=0)
    assert sorted(drawn) == distinct(every, "task")
    assert f"the first {len(drawn)} tasks of the lot with seed 0: {', '.join(f'`{task}`' for task in drawn)}." in text
    for side in ("held out", "developed on"):
        inside = [row for row in every if row["side"] == side]
        assert by_task(inside) in page
        sac, ours, theirs = (two(of(inside, name).mean()) for name in (SAC, OURS, THEIRS))
        reached = [len(seconds(inside, name)) for name in (SAC, OURS, THEIRS)]
        assert (
            f"{side.capitalize()} ({len(distinct(inside, 'task'))}): any-step success is {sac} in the mean, of the "
            f"recipe {ours}, of SB3's PPO {theirs}. Of the {of(inside, SAC).size} runs of each, {reached[0]} of SAC, "
            f"{reached[1]} of the recipe and {reached[2]} of SB3's PPO reach .9 in an evaluation." in text
        )
        if side == "held out":
            assert f"the recipe's mean differs from SAC's by {compared(inside, SAC, 'A run of it')}" in text
            assert ahead(of(inside, OURS), of(inside, SAC)) == "+.35 [−.15, +.86]"  # with 0
            said = f"SAC at its defaults came to {sac} and the recipe to {ours}, which over so few tasks shows no "
            assert f"{said}difference, +.35 [−.15, +.86]." in (DOCS.parent / "README.md").read_text()
    minutes = [
        median(row["seconds"] for row in every if (row["entrant"], row["seed"]) == (name, 22)) / 60
        for name in (SAC, OURS)
    ]
    ran = [row["seconds"] for row in every if row["entrant"] == SAC]
    assert f"The {len(ran)} runs of SAC took {sum(ran) / 3600:.1f} of the eight hours." in text
    assert (
        f"A run with seed 22 takes {minutes[0]:.0f} processor minutes of training, one of the recipe {minutes[1]:.1f}"
        in text
    )


def ahead(ours: Array, theirs: Array) -> str:
    """By how much the mean of ours is higher, with its interval over tasks."""
    return signed(difference_with_interval(*paired_interval(ours.mean(1).round(9) - theirs.mean(1).round(9))))


def beside(rows: list[Row], rival: str) -> str:
    """How the recipe's own objective does beside another one in it, on the same tasks and seeds."""
    difference = compared(rows, rival, "A run of the recipe's own")
    return f"with {rival} {two(of(rows, rival).mean())}: a difference of {difference}"


def compared(rows: list[Row], rival: str, run: str) -> str:
    """By how much, how probably and on how many tasks a `run` of the recipe is ahead of a rival's."""
    ours, theirs = of(rows, OURS), of(rows, rival)
    mine, other = ours.mean(1).round(9), theirs.mean(1).round(9)
    probability = short(with_interval(*improvement_interval(ours, theirs)))
    better, level = int((mine > other).sum()), int((mine == other).sum())
    return (
        f"{ahead(ours, theirs)} over tasks. {run} succeeds more often with probability {probability}; its mean is "
        f"higher on {better}, level on {level}, lower on {len(mine) - better - level}."
    )


def of(rows: list[Row], entrant: str, name: str = "success") -> Array:
    """[tasks, seeds] of an entrant."""
    return scores([row for row in rows if row["entrant"] == entrant], name)


def seconds(rows: list[Row], entrant: str) -> dict[tuple[str, int], float]:
    """Processor seconds to the first evaluation with success ≥ .9, by task and seed, of the runs that get there."""
    own = [row for row in rows if row["entrant"] == entrant and row["seconds_to_0.9"] != ""]
    return {(row["task"], row["seed"]): row["seconds_to_0.9"] for row in own}


def two(share: float) -> str:
    return short(f"{share:.2f}")


def signed(text: str) -> str:
    """A difference as it stands in the text: −.02 [−.08, +.03]."""
    return short(text).replace("-", "−")


def short(text: str) -> str:
    """As numbers stand in the text: .43, +.18 [+.10, +.26]."""
    return re.sub(r"(?<!\d)0\.", ".", text)
