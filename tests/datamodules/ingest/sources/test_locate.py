"""What a folder stands for, and what of it is left out by name."""

from pathlib import Path

from datamodules.ingest.sources.locate import find_sources
from deploy.runtime.policy import OnnxPolicy
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
