"""Where stores are kept."""

from pathlib import Path

import pytest

from datamodules.ingest.cache import cache_folder
from gipo.common.errors import UserError


def test_a_user_without_a_home_names_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number nobody has."""

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder(tmp_path / "a") == tmp_path / "a"
    with pytest.raises(
        UserError, match=r"^this user has no home folder to keep stores in; name a folder with data\.ingest\.cache$"
    ):
        cache_folder(None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "gipo"
