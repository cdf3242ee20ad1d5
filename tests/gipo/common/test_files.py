"""What is no file is never replaced by one; a lock on a folder: who has to wait, and what a child keeps."""

import errno
import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest

from gipo.common.errors import UserError
from gipo.common.files import free_name, locked, refuse_to_replace, replace, whole_folder, write_bytes, write_text
from robots.log import LogWriter, Session
from robots.review.report import write_report
from tests.runs import dead


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


def test_a_power_cut_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, synced: list[tuple[Path, int | list[str]]]
) -> None:
    path, partial = tmp_path / "a", tmp_path / f".a.{os.getpid()}.partial"
    for content in (b"one", b"other"):
        write_bytes(content, path)
    assert synced == [(partial, 3), (tmp_path, ["a"]), (partial, 5), (tmp_path, ["a"])]


@pytest.mark.parametrize("exists", [False, True])
def test_a_power_cut_leaves_nothing_or_all_of_a_folder(
    exists: bool, tmp_path: Path, synced: list[tuple[Path, int | list[str]]]
) -> None:
    path = tmp_path / "out"
    if exists:
        path.mkdir()
    with whole_folder(path) as partial:
        (partial / "meta").mkdir()
        (partial / "meta" / "info").write_text("1")
    inside = [(partial / "meta", ["info"]), (partial / "meta" / "info", 1), (partial, ["meta"])]
    after = (path, [partial.name, "meta"]) if exists else (tmp_path, ["out"])
    assert synced == [*inside, after]


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


def test_what_another_process_writes_is_left_to_it(tmp_path: Path) -> None:
    (theirs := tmp_path / f".data.{os.getppid()}.partial").mkdir()
    (left := tmp_path / f".data.{dead()}.partial").mkdir()
    with whole_folder(tmp_path / "data.v2"), whole_folder(tmp_path / "data"):
        assert not left.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == [theirs.name, "data", "data.v2"]


@pytest.mark.parametrize("name", ["a.mcap", "a.labels.jsonl", "a.ckpt", "a.onnx"])
def test_what_cannot_be_made_again_is_not_replaced(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    refuse_to_replace(path, ".html")  # there is none
    path.write_text("dear")
    refuse_to_replace(path, path.suffix)
    with pytest.raises(UserError, match=r"is there, and a \.\w+ file is not replaced by a \.html; name another"):
        refuse_to_replace(path, ".html")


def test_a_checkpoint_or_a_log_under_another_name_is_not_replaced_and_a_folder_is_no_file(tmp_path: Path) -> None:
    for name, begins in (
        ("policy.pt", b"PK\x03\x04\x00"),
        ("session", b"\x89MCAP0\r\n"),
        ("demo.h5", b"\x89HDF\r\n\x1a"),
    ):
        (tmp_path / name).write_bytes(begins)
        with pytest.raises(UserError, match=r"a \.\w+ file is not replaced by a \.onnx"):
            refuse_to_replace(tmp_path / name, ".onnx")
    (tmp_path / "old.onnx").write_bytes(b"\x08\x0a")
    refuse_to_replace(tmp_path / "old.onnx", ".onnx")
    for folder in (tmp_path, f"{tmp_path}/new/"):
        with pytest.raises(UserError, match="is a folder; name a file in it"):
            refuse_to_replace(folder, ".onnx")


def test_a_name_beside_is_the_first_that_nothing_has(tmp_path: Path) -> None:
    path = tmp_path / "last.v2.ckpt"
    assert free_name(path) == tmp_path / "last.v2-1.ckpt"
    (tmp_path / "last.v2-2.ckpt").touch()
    assert free_name(path) == tmp_path / "last.v2-1.ckpt"
    (tmp_path / "last.v2-1.ckpt").mkdir()
    assert free_name(path) == tmp_path / "last.v2-3.ckpt"


def test_a_folder_appears_whole_beside_its_place_or_within_one_that_is_empty(tmp_path: Path) -> None:
    new, empty = tmp_path / "some" / "new", tmp_path / "empty"
    empty.mkdir(mode=0o750)
    before = empty.stat()
    (empty / f".empty.{dead()}.partial").mkdir()
    for path in (new, empty):
        with whole_folder(path) as partial:
            (partial / "meta").mkdir()
            (partial / "meta" / "info").write_text("1")
            assert not (path / "meta").exists()
        assert [each.name for each in path.iterdir()] == ["meta"], "and nothing that a killed one left"
        assert (path / "meta" / "info").read_text() == "1"
    assert (empty.stat().st_ino, empty.stat().st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("exists", [False, True])
def test_of_a_folder_that_fails_nothing_is_left_and_the_disk_is_told_by_its_name(exists: bool, tmp_path: Path) -> None:
    path = tmp_path / "out"
    if exists:
        path.mkdir()
    with pytest.raises(OSError, match=r"No space left on device: '.*/out'"), whole_folder(path) as partial:  # noqa: PT012
        (partial / "half").write_text("of it")
        raise OSError(errno.ENOSPC, "No space left on device", str(partial / "other"))
    with pytest.raises(ZeroDivisionError), whole_folder(path) as partial:
        _ = 1 / 0
    assert [each.name for each in tmp_path.rglob("*")] == ["out"] * exists
