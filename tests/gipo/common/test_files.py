"""What is no file is never replaced by one; a lock on a folder: who has to wait, and what a child keeps."""

import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest

from gipo.common.errors import UserError
from gipo.common.files import locked, replace, write_bytes, write_text
from robots.log import LogWriter, Session
from robots.review.report import write_report


def is_free(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_a_folder_is_locked_until_the_block_ends(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert not is_free(tmp_path)
    assert is_free(tmp_path)
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        _ = 1 / 0
    assert is_free(tmp_path)


def test_a_child_keeps_the_lock_until_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path) as lock:
        child = subprocess.Popen(["sleep", "0.5"], pass_fds=[lock])
    assert not is_free(tmp_path)
    with locked(tmp_path):
        assert child.poll() is not None or child.wait(1) == 0  # the next one waited for it
    assert f"waiting for another process that works in {tmp_path}" in capsys.readouterr().err


def test_a_file_is_replaced_and_a_new_one_made(tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / "partial").write_text(content)
        replace(tmp_path / "partial", tmp_path / "a")
        assert (tmp_path / "a").read_text() == content
    (tmp_path / "partial").write_text("three")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace(tmp_path / "partial", tmp_path / "folder")


def test_a_pipe_or_a_device_stays_what_it_is_whoever_writes(tmp_path: Path) -> None:
    """A pipe stands for `/dev/null` here: a test that fails must not replace that."""
    pipe, log = tmp_path / "pipe", tmp_path / "a.mcap"
    os.mkfifo(pipe)
    LogWriter(log, Session("{}")).close()
    for write in (
        lambda: write_text("x", pipe),
        lambda: write_bytes(b"x", pipe),
        lambda: write_report([log], pipe),
    ):
        with pytest.raises(UserError, match="it is a device or a pipe, and would be replaced by a file"):
            write()
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mcap", "pipe"]


def test_nothing_in_the_folder_of_devices_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link there leads to where a terminal's output goes, which may be a file."""
    replaced: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "replace", lambda *paths: replaced.append(paths))
    with pytest.raises(FileExistsError):
        replace(tmp_path / "partial", "/dev/stdout")
    assert replaced == []
