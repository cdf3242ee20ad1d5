"""Where stores are kept."""

from pathlib import Path

import pytest

from datamodules.ingest.cache import cache_folder, publish
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


def test_a_power_cut_leaves_no_half_of_a_store(tmp_path: Path, synced: list[tuple[Path, int | list[str]]]) -> None:
    (made := tmp_path / "made").mkdir()
    (made / "frames.memmap").write_bytes(b"rows")
    publish(made, tmp_path / "store")
    assert synced == [(made / "frames.memmap", 4), (made, ["frames.memmap"]), (tmp_path, ["store"])]
