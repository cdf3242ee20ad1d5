"""What a folder stands for, and what of it is left out by name."""

from pathlib import Path

import pytest

from datamodules.ingest.sources.locate import find_sources
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from tests.datamodules.ingest.builders import write_log
from tests.datamodules.ingest.foreign import write_frames


def test_a_dataset_beside_logs_is_left_out_by_name_until_it_is_named(token: OnnxPolicy, tmp_path: Path) -> None:
    write_log(tmp_path / "a.mcap", [token], [4], 0)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    write_frames(theirs, [3, 4], {})
    found, left_out = find_sources([tmp_path])
    assert [source.path.name for source in found] == ["a.mcap"]
    assert left_out == [f"{theirs}: a dataset in a folder of logs; name it too unless it is an export of them"]
    found, left_out = find_sources([tmp_path, theirs])
    assert [source.path.name for source in found] == ["a.mcap", "theirs"]
    assert not left_out


@pytest.mark.parametrize("part", ["meta/info.json", "data", "data/chunk-000/file-000.parquet"])
def test_a_part_of_a_dataset_names_the_dataset(part: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    write_frames(theirs, [3, 4], {})
    with pytest.raises(UserError, match=rf"{part} is a part of the dataset {theirs}; name that folder$"):
        find_sources([theirs / part])


def test_a_link_to_what_is_not_there_is_left_out_by_name(token: OnnxPolicy, tmp_path: Path) -> None:
    """As to the logs on a disk that is not mounted."""
    log = write_log(tmp_path / "a.mcap", [token], [4], 0)
    (tmp_path / "week").symlink_to("/nowhere/week")
    found, left_out = find_sources([tmp_path])
    assert [source.path for source in found] == [log]
    assert left_out == [f"{tmp_path / 'week'}: a link to /nowhere/week, which is not there"]
    log.unlink()
    with pytest.raises(UserError, match="week: a link to /nowhere/week, which is not there"):
        find_sources([tmp_path])
