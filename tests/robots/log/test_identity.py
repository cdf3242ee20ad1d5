"""The beginning of a log, without the rest of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gipo.common.errors import UserError
from robots.log import LogWriter, Session, read_log, read_opening
from robots.log.container import add_message, open_channel, start_writer
from robots.log.header import SESSION
from robots.log.identity import BLOCKS


def test_it_says_what_the_whole_log_says(written: Callable[..., Path]) -> None:
    path = written(120)
    whole, opening = read_log(path), read_opening(path)
    assert opening.header == whole.header
    assert opening.policy_id == whole.episodes[0].policy_id == "0" * 64


def test_damage_further_on_is_not_seen_and_damage_at_the_beginning_is_refused(written: Callable[..., Path]) -> None:
    path = written(1000)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    assert read_opening(path).policy_id == "0" * 64
    content[content.index(b"gipo.session") + 40] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name} is damaged from byte .*: the session's metadata"):
        read_opening(path)


@pytest.mark.parametrize("size", [0, 5, 60])
def test_a_file_that_ends_before_its_session_is_refused(size: int, written: Callable[..., Path]) -> None:
    path = written(10)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match="ends before it says whose log it is"):
        read_opening(path)


def test_the_search_for_an_episode_ends(tmp_path: Path) -> None:
    def idle(blocks: int) -> str | None:
        path = tmp_path / f"{blocks}.mcap"
        writer = LogWriter(path, Session("{}", {"a" * 64: "{}"}), flush_seconds=1)
        for index in range(blocks):
            # each of its own fills a block
            writer.event(
                "reset" if index < blocks - 1 else "episode_start", "x" * 300_000, data={"policy_id": "a" * 64}
            )
        writer.close()
        return read_opening(path).policy_id

    assert idle(BLOCKS) == "a" * 64
    assert idle(BLOCKS + 1) is None


@pytest.mark.parametrize("event", [b"[]", b"{", b'{"kind": "episode_start", "data": []}', b"{}"])
def test_an_event_of_another_form_is_refused(event: bytes, tmp_path: Path) -> None:
    with open(tmp_path / "a.mcap", "wb") as file:
        writer = start_writer(file, "test")
        writer.add_metadata(SESSION, Session("{}").metadata())
        add_message(writer, open_channel(writer, "event", b"{}"), 0, 0, event)
        writer.finish()
    with pytest.raises(UserError, match="of another form"):
        read_opening(tmp_path / "a.mcap")


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path} is a folder; name one log$"):
        read_opening(tmp_path)
    with pytest.raises(UserError, match="no log at"):
        read_opening(tmp_path / "x.mcap")
