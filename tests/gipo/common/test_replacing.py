"""What is no file is never replaced by one."""

import os
import stat

import pytest

from deploy.errors import ArtifactError
from deploy.runtime.files import write_atomically
from gipo.common.files import write_text
from gipo.common.replacing import replace
from robots.errors import LogError
from robots.log import LogWriter, Session
from robots.review.report import write_report


def test_a_file_is_replaced_and_a_new_one_made(tmp_path):
    for content in ("one", "two"):
        (tmp_path / "partial").write_text(content)
        replace(tmp_path / "partial", tmp_path / "a")
        assert (tmp_path / "a").read_text() == content
    (tmp_path / "partial").write_text("three")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace(tmp_path / "partial", tmp_path / "folder")


def test_a_pipe_or_a_device_stays_what_it_is_whoever_writes(tmp_path):
    """A pipe stands for `/dev/null` here: a test that fails must not replace that."""
    pipe, log = tmp_path / "pipe", tmp_path / "a.mcap"
    os.mkfifo(pipe)
    LogWriter(log, Session("{}")).close()
    for write, error in (
        (lambda: write_text("x", pipe), OSError),
        (lambda: write_atomically(pipe, b"x"), ArtifactError),
        (lambda: write_report([log], pipe), LogError),
    ):
        with pytest.raises(error, match="it is a device or a pipe, and would be replaced by a file"):
            write()
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mcap", "pipe"]


def test_nothing_in_the_folder_of_devices_is_replaced(tmp_path, monkeypatch):
    """A link there leads to where a terminal's output goes, which may be a file."""
    replaced = []
    monkeypatch.setattr(os, "replace", lambda *paths: replaced.append(paths))
    with pytest.raises(FileExistsError):
        replace(tmp_path / "partial", "/dev/stdout")
    assert replaced == []
