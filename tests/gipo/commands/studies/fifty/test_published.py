"""The runs that are published: rows and text are what the study makes of what every run left behind."""

import csv
import tarfile
from pathlib import Path

import pytest

from gipo.commands.studies.fifty.entrants import DEFAULT, Entry
from gipo.commands.studies.fifty.record import read_result
from gipo.commands.studies.fifty.tables import Row, report, row_of

DOCS = Path(__file__).parents[5] / "docs"
PUBLISHED = list(csv.DictReader((DOCS / "data" / "fifty.csv").read_text().splitlines()))
FRAMES, EVERY = 120_000, 10_000


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every run left behind."""
    folder = tmp_path_factory.mktemp("fifty")
    with tarfile.open(DOCS / "data" / "fifty_runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def rows(kept: Path) -> list[Row]:
    """The published rows, made anew."""
    return [made_anew(Entry(row["entrant"], row["task"], int(row["seed"])), kept) for row in PUBLISHED]


def made_anew(one: Entry, kept: Path) -> Row:
    return row_of(one, read_result(kept / one.folder), FRAMES, one.command(FRAMES, EVERY, []))


def test_runs_that_no_row_tells_are_of_seeds_that_have_not_ended(kept: Path) -> None:
    told = {Entry(row["entrant"], row["task"], int(row["seed"])).folder for row in PUBLISHED}
    found = {path.parent.relative_to(kept) for path in kept.glob("*/*/result.json")}
    assert told <= found
    begun = {int(folder.name.rpartition("-")[2]) for folder in found - told}
    assert not begun & {int(row["seed"]) for row in PUBLISHED}
    text = (DOCS / "fifty.md").read_text()
    for seed in begun:
        count = sum(folder.name.endswith(f"-{seed}") for folder in found)
        assert f"{count} runs of seed {seed} have ended since" in text
    for folder in found - told:
        entrant = next(name for name in DEFAULT if name.replace(" ", "-") == folder.parent.name)
        task, _, seed = folder.name.rpartition("-")
        assert made_anew(Entry(entrant, task, int(seed)), kept)["frames"] == FRAMES


def test_every_row_is_made_of_its_run(rows: list[Row]) -> None:
    for row, published in zip(rows, PUBLISHED, strict=True):
        assert {name: str(value) for name, value in row.items()} == published


def test_the_text_is_made_of_the_rows(rows: list[Row]) -> None:
    assert report(rows) in (DOCS / "fifty.md").read_text()


def test_an_entrant_ran_with_every_seed_and_where_the_first_one_did() -> None:
    runs = [(row["entrant"], row["task"], row["seed"]) for row in PUBLISHED]
    seeds = {row["seed"] for row in PUBLISHED}
    ran = {(entrant, task) for entrant, task, _ in runs}
    assert sorted(runs) == sorted((entrant, task, seed) for entrant, task in ran for seed in seeds)
    assert {task for _, task in ran} == {task for entrant, task in ran if entrant == DEFAULT[0]}
