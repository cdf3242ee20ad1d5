"""A lock on a folder: who has to wait, and what a child keeps."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from gipo.common.files import locked


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
