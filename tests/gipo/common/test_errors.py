"""What is said of a failure of the system."""

import errno
import os
from pathlib import Path

import pytest

from gipo.common.errors import of_the_system

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_in_the_place_of_a_folder_is_named_and_all_else_is_what_the_system_says(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "deep" / "er"):
        assert of_the_system(FULL, folder) == f"{file} is a file; name a folder"
    for folder in (tmp_path, tmp_path / "nowhere" / "deep"):
        assert of_the_system(FULL, folder) == "No space left on device"


def test_a_folder_that_may_not_be_searched_ends_in_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: object, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", denied)  # as root may search any
    said = of_the_system(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "locked" / "deep")
    assert said == "Permission denied"
