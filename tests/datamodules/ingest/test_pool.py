"""Worker processes: whatever one of them cannot do is told of the source that it was at, and of no other."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datamodules.ingest.convert import Job
from datamodules.ingest.pool import _Workers, run_jobs
from datamodules.ingest.sources.mcap import McapSource
from gipo.common.errors import UserError
from robots.log import LogWriter, Session
from tests.robots.builders import make_spec, step_row


class Deadly(dict[str, str]):
    """Ends the process that unpickles it, as the system does where memory runs out."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


def job(path: Path) -> Job:
    """To read a log of a short episode of a person."""
    writer = LogWriter(path, Session(make_spec().to_json()))
    for index in range(3):
        row = step_row(index, 5, 3)
        row.source, row.valid = "person", False
        writer.step(row)
    writer.close()
    folder = path.with_suffix("")
    folder.mkdir()
    return Job(str(path), str(folder), {}, 0.0, 0.0, False, 1)


def test_any_error_names_its_source_and_the_process_goes_on(tmp_path: Path) -> None:
    good = job(tmp_path / "good.mcap")
    bad = replace(job(tmp_path / "bad.mcap"), folder=str(tmp_path / "none"))
    with _Workers(1) as ask:
        for _ in range(2):
            with pytest.raises(UserError, match=r"bad\.mcap: FileNotFoundError"):
                ask(bad)
        assert [span.rows for span in ask(good).spans] == [2]
    with pytest.raises(UserError, match=r"bad\.mcap: FileNotFoundError"):
        run_jobs([good, bad], 2, lambda: None)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_that_of_the_stores_and_no_fault_of_a_source(workers: int, tmp_path: Path) -> None:
    jobs = [job(tmp_path / f"{name}.mcap") for name in "ab"]
    for each in jobs:
        (Path(each.folder) / "observation").symlink_to("/dev/full")
    kind, said = (
        (UserError, r"to .*[ab]: No space.*; name another folder") if workers > 1 else (OSError, "No space left")
    )
    with pytest.raises(kind, match=said):
        run_jobs(jobs, workers, lambda: None)


def test_what_a_library_raises_is_one_line_of_the_only_source_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("attempting I/O in temporary file space")

    monkeypatch.setattr(McapSource, "episodes", fail)
    with pytest.raises(UserError, match=r"a\.mcap: RuntimeError .*: attempting I/O"):
        run_jobs([job(tmp_path / "a.mcap")], 1, lambda: None)


def test_a_process_that_ends_is_told_of_what_it_read_and_of_nothing_else(tmp_path: Path) -> None:
    innocent = job(tmp_path / "innocent.mcap")
    deadly = replace(job(tmp_path / "deadly.mcap"), artifacts=Deadly())
    with _Workers(1) as ask:
        for each in (deadly, innocent):
            with pytest.raises(UserError, match=r"that read .*deadly\.mcap ended \(exit code 3\); if memory ran out"):
                ask(each)
