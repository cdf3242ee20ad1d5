"""Every file gets the verdict it deserves, and only a damaged log is set aside, with its labels."""

import errno
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from gipo.common.errors import UserError
from robots.cli import main
from robots.log import (
    DAMAGED,
    FOREIGN,
    NEWER,
    SEALED,
    SET_ASIDE,
    TORN,
    append_label,
    files_below,
    find_logs,
    labels_path,
    logs_below,
    read_header,
    read_log,
    read_opening,
    verify,
)
from robots.log.scan import StrangeLog
from robots.log.stream import LogStream
from robots.review.quarantine import set_aside
from tests.robots.builders import EPISODE
from tests.robots.strangers import write_of_schema, write_rosbag

Write = Callable[..., Path]


def spoilt(path: Path, byte: int) -> Path:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)
    return path


@pytest.fixture
def folder(written: Write, tmp_path: Path) -> Path:
    """A log of every kind, and what is none; the damaged one is labelled."""
    sealed = written(EPISODE, "sealed.mcap")
    torn = written(EPISODE, "torn.mcap")
    torn.write_bytes(torn.read_bytes()[:-300])
    damaged = written(EPISODE, "damaged.mcap")
    append_label(damaged, read_log(damaged).header.session, 0, success=True, reward=None)
    spoilt(damaged, damaged.stat().st_size // 2)
    write_rosbag(tmp_path / "bag.mcap")
    write_of_schema(tmp_path / "newer.mcap")
    write_of_schema(tmp_path / "older.mcap", 0)
    (tmp_path / "notes.mcap").write_text("no log at all, and longer than a magic number\n" * 40)
    assert sealed.exists()
    return tmp_path


def test_every_file_is_called_what_it_is_and_only_the_damaged_moves(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    aside = tmp_path / "aside"
    assert main(["verify", str(folder), "--quarantine", str(aside)]) == 2
    out, err = capsys.readouterr()
    verdicts = {Path(line.split()[1].rstrip(":")).name: line.split()[0] for line in out.splitlines() if line[0] != " "}
    assert verdicts == {
        "bag.mcap": "foreign",
        "damaged.mcap": "damaged",
        "newer.mcap": "newer",
        "notes.mcap": "foreign",
        "older.mcap": "sealed",
        "sealed.mcap": "sealed",
        "torn.mcap": "torn",
    }
    assert "bag.mcap: an MCAP file of profile 'ros2'" in out
    assert "newer.mcap: the log has schema 2, this gipo reads up to 1; upgrade gipo" in out
    assert "4 of 7 files are not sound: 1 damaged, 2 foreign, 1 newer" in err
    moved = {"damaged.mcap", "damaged.labels.jsonl"}
    assert {path.name for path in aside.iterdir()} == {*moved, SET_ASIDE}
    assert {name: (aside / name).read_bytes() for name in moved} == {name: before[name] for name in moved}
    left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert left == {name: content for name, content in before.items() if name not in moved}


def test_exit_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, code in {"sealed": 0, "torn": 0, "older": 0, "damaged": 2, "bag": 2, "newer": 2, "notes": 2}.items():
        assert main(["verify", str(folder / f"{name}.mcap")]) == code, name
    (folder / "empty").mkdir()
    assert main(["verify", str(folder / "empty")]) == 2
    assert "holds no *.mcap" in capsys.readouterr().err


def test_nothing_is_overwritten_and_the_rest_is_still_checked(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "damaged.labels.jsonl").write_text("of somebody else")
    assert main(["verify", str(folder), "--quarantine", str(tmp_path / "aside")]) == 2
    out, err = capsys.readouterr()
    assert "stays where it is" in err
    assert "torn.mcap" in out
    assert (folder / "damaged.mcap").exists()
    assert [path.name for path in (tmp_path / "aside").iterdir()] == ["damaged.labels.jsonl"]
    assert (tmp_path / "aside" / "damaged.labels.jsonl").read_text() == "of somebody else"


def test_every_damaged_log_that_stays_is_named(
    folder: Path, tmp_path: Path, written: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt(written(EPISODE, "another.mcap"), 3000)
    (tmp_path / "aside").mkdir()
    for name in (SET_ASIDE, "another.mcap", "damaged.mcap"):
        (tmp_path / "aside" / name).write_text("of somebody else")
    assert main(["verify", str(folder), "--quarantine", str(tmp_path / "aside")]) == 2
    said = capsys.readouterr().err
    assert all(f"{name}.mcap stays where it is" in said for name in ("another", "damaged"))


def test_what_lies_aside_is_found_only_where_it_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aside = folder / "aside"
    assert main(["verify", str(folder), "--quarantine", str(aside)]) == 2
    assert aside / "damaged.mcap" not in logs_below([folder])
    assert logs_below([aside]) == [aside / "damaged.mcap"]
    for _ in range(2):
        assert main(["verify", str(aside), "--quarantine", str(aside)]) == 2
        assert "aside already and stays there" in capsys.readouterr().err
        assert (aside / "damaged.mcap").exists()


@pytest.mark.parametrize("named", ["damaged.mcap", "."])
@pytest.mark.parametrize("aside", [".", ".."])
def test_logs_are_not_set_aside_among_logs(
    named: str, aside: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert main(["verify", named, "--quarantine", aside]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"--quarantine \.+ holds .*\.mcap and no SET_ASIDE\.txt", err)
    assert not out
    assert (folder / "damaged.mcap").exists()


def test_a_folder_by_another_path_loses_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "again").symlink_to(folder)  # as one that is mounted twice, or spelt otherwise where case is ignored
    with pytest.raises(UserError, match="again already and stays there"):
        set_aside(folder / "damaged.mcap", folder / "again")
    assert (folder / "damaged.mcap").exists()


def test_a_file_is_no_place_for_damaged_logs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), "--quarantine", str(folder / "notes.mcap")]) == 2
    assert "notes.mcap is no folder" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_and_the_rest_is_looked_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "disk.mcap").symlink_to("/proc/self/mem")  # fails as a dying disk does
    torn = str(folder / "torn.mcap")
    assert main(["verify", torn, str(folder), str(tmp_path / "gone.mcap"), torn]) == 2
    out, err = capsys.readouterr()
    assert out.count("torn.mcap") == 1
    assert "unreadable cannot read " in out
    assert "disk.mcap: Input/output error" in out
    assert "unreadable no log at " in out
    assert "6 of 9 files are not sound: 1 damaged, 2 foreign, 1 newer, 2 unreadable" in err
    assert main(["info", str(folder / "disk.mcap")]) == 2
    assert "disk.mcap: Input/output error" in capsys.readouterr().err


def test_two_at_once_lose_no_log(folder: Path, tmp_path: Path) -> None:
    aside, data = tmp_path / "aside", (folder / "damaged.mcap").read_bytes()
    logs = [folder / f"{number}.mcap" for number in range(40)]
    for log in logs:
        log.write_bytes(data)
        log.with_suffix(".labels.jsonl").write_bytes(b"{}")
    both = threading.Barrier(2, timeout=60)

    def move() -> int:
        moved = 0
        for log in logs:
            both.wait()
            with suppress(UserError):
                moved += len(set_aside(log, aside)) == 2
        return moved

    with ThreadPoolExecutor(2) as threads:
        counts = [threads.submit(move) for _ in range(2)]
    assert sum(count.result() for count in counts) == len(logs)
    assert all((aside / log.name).read_bytes() == data and not log.exists() for log in logs)
    assert len(list(aside.glob("*.labels.jsonl"))) == len(logs)


def test_another_file_system_gets_a_copy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def far(*paths: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", far)
    log = folder / "damaged.mcap"
    before = [path.read_bytes() for path in (log, labels_path(log))]
    targets = set_aside(log, tmp_path / "far")
    assert [path.read_bytes() for path in targets] == before
    assert {path.name for path in (tmp_path / "far").iterdir()} == {SET_ASIDE, "damaged.labels.jsonl", "damaged.mcap"}
    assert not log.exists()
    assert not labels_path(log).exists()


def test_what_cannot_leave_its_folder_stays_whole_and_the_rest_is_still_checked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.parent == folder and self.suffix in (".mcap", ".jsonl"):
            raise OSError(errno.EROFS, "Read-only file system")
        own(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    log = folder / "damaged.mcap"
    assert main(["verify", str(folder), "--quarantine", str(tmp_path / "aside")]) == 2
    out, err = capsys.readouterr()
    assert "damaged.mcap cannot be moved: Read-only file system; it stays where it is" in err
    assert "not sound" in err
    assert "sealed" in out.split("damaged.mcap")[1]
    assert [each.name for each in (tmp_path / "aside").iterdir()] == [SET_ASIDE]
    assert log.exists()
    assert labels_path(log).exists()


@pytest.mark.parametrize("as_far_as_it_came", [os.link, shutil.copy, lambda _, target: target.touch()])
def test_a_kill_in_between_is_made_good_by_the_next_call(
    as_far_as_it_came: Callable[[Path, Path], None], folder: Path, tmp_path: Path
) -> None:
    log = folder / "damaged.mcap"
    before = log.read_bytes()
    (tmp_path / "aside").mkdir()
    as_far_as_it_came(log, tmp_path / "aside" / log.name)
    set_aside(log, tmp_path / "aside")
    assert (tmp_path / "aside" / log.name).read_bytes() == before
    assert (tmp_path / "aside" / "damaged.labels.jsonl").exists()
    assert not log.exists()


@pytest.mark.parametrize("byte", [0, 5, 8, 10, 17, 22, 40, 200])
def test_a_log_of_ours_with_a_wrong_byte_at_its_start_is_damaged_and_never_foreign(written: Write, byte: int) -> None:
    assert verify(spoilt(written(EPISODE), byte)).status == DAMAGED


@pytest.mark.parametrize(("name", "reason"), [("bag", "is no log of gipo-robot: an MCAP file"), ("newer", "schema 2")])
def test_every_reader_says_so(folder: Path, name: str, reason: str) -> None:
    path = folder / f"{name}.mcap"
    readers: list[Callable[[Path], object]] = [read_log, read_header, read_opening, lambda path: list(LogStream(path))]
    for read in (*readers, lambda path: read_log(path, salvage=True)):
        with pytest.raises(StrangeLog, match=reason):
            read(path)
    assert verify(path).status == {"bag": FOREIGN, "newer": NEWER}[name]


@pytest.mark.parametrize("schema", ["9" * 5000, "-1", "two", ""])
def test_a_schema_that_is_no_number_of_a_version_is_refused_or_read(schema: str, tmp_path: Path) -> None:
    path = write_of_schema(tmp_path / "odd.mcap", schema)
    assert verify(path).status == (SEALED if schema == "-1" else DAMAGED)


@pytest.mark.parametrize("cut", [30, 200, -20])
def test_a_foreign_file_that_is_cut_stays_foreign_or_is_too_short_to_tell(tmp_path: Path, cut: int) -> None:
    path = write_rosbag(tmp_path / "bag.mcap")
    path.write_bytes(path.read_bytes()[:cut])
    assert verify(path).status == (TORN if cut == 30 else FOREIGN)


def test_strangers_in_a_folder_do_not_stop_a_command(
    written: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.robots.builders import make_spec

    written(1, "sealed.mcap").unlink()
    write_rosbag(tmp_path / "bag.mcap")
    write_of_schema(tmp_path / "newer.mcap")
    with pytest.raises(UserError, match=r"bag\.mcap is no log of gipo-robot.*; .*newer\.mcap: the log has schema 2"):
        find_logs([tmp_path])
    with pytest.raises(StrangeLog, match="profile 'ros2'"):
        read_log(*find_logs([tmp_path / "bag.mcap"])[0])
    log = _sound(tmp_path / "ours.mcap", make_spec().to_json())
    assert find_logs([tmp_path])[0] == [log]
    assert verify(log).status == SEALED
    for command in (["report", "--out", str(tmp_path / "r.html")], ["export", "--format", "lerobot", "--out", "x"]):
        if command[0] == "export":
            pytest.importorskip("pyarrow")
            command[-1] = str(tmp_path / "out")
        assert main([command[0], str(tmp_path), *command[1:]]) == 0
        err = capsys.readouterr().err
        assert "left out: " in err
        assert "bag.mcap is no log of gipo-robot" in err
        assert "newer.mcap: the log has schema 2" in err
    assert "1 robot session<" in (tmp_path / "r.html").read_text()
    assert main(["info", str(tmp_path / "bag.mcap")]) == 2
    assert "is no log of gipo-robot: an MCAP file of profile 'ros2'" in capsys.readouterr().err


def _sound(path: Path, spec: str) -> Path:
    from robots.log import LogWriter, Session
    from tests.robots.builders import step_row

    writer = LogWriter(path, Session(spec))
    for index in range(5):
        writer.step(step_row(index, 5, 3))
    writer.close()
    return path


def test_a_link_to_a_log_of_the_same_folder_is_the_same_log(written: Write, tmp_path: Path) -> None:
    """As who keeps a `latest.mcap`."""
    log = written(EPISODE, "b.mcap")
    (tmp_path / "a.mcap").symlink_to("b.mcap")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.mcap").symlink_to(log)
    (tmp_path / "gone.mcap").symlink_to("nowhere")
    assert files_below(tmp_path) == find_logs([tmp_path])[0] == [log]


def test_what_cannot_be_looked_into_is_named(
    written: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a disk that is not there today, and another user's folder."""
    (tmp_path / "theirs").mkdir()
    log = written(EPISODE, "a.mcap")
    for name in ("gone.mcap", "week", ".#lock.mcap"):
        (tmp_path / name).symlink_to(f"/nowhere/{name}")
    lost = {name: f"{tmp_path / name}: a link to /nowhere/{name}, which is not there" for name in ("gone.mcap", "week")}
    (tmp_path / "theirs").chmod(0)
    if not os.access(tmp_path / "theirs", os.R_OK):  # root may look everywhere
        lost["theirs"] = f"{tmp_path / 'theirs'}: no permission to look into this folder"
    said = [lost[name] for name in sorted(lost)]
    try:
        assert find_logs([tmp_path]) == ([log], said)
        assert main(["verify", str(tmp_path)]) == 2
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("unreadable")] == [
            f"unreadable {reason}" for reason in said
        ]
        log.unlink()
        with pytest.raises(UserError, match=r"it holds no .*gone\.mcap: a link to /nowhere/gone\.mcap, which is not"):
            find_logs([tmp_path])
    finally:
        (tmp_path / "theirs").chmod(0o755)


def test_logs_of_linked_folders_are_found_once_also_where_links_go_in_circles(written: Write, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "tuesday").mkdir()
    here, there = written(EPISODE, "logs/a.mcap"), written(EPISODE, "tuesday/b.mcap")
    for name, target in (("1", there.parent), ("2", there.parent), ("self", here.parent)):
        (here.parent / name).symlink_to(target)
    assert files_below(here.parent) == [here.parent / "1" / "b.mcap", here]
    assert find_logs([tmp_path])[0] == [here, there], "by its own name where a folder is reached without a link, too"


def test_labels_given_through_a_link_are_the_logs_own(written: Write, tmp_path: Path) -> None:
    log = written(EPISODE, "b.mcap")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "latest.mcap"
    link.symlink_to(log)
    assert main(["label", str(link), "--episode", "0", "--success"]) == 0
    for path in (log, link):
        assert read_log(path).episodes[0].success is True
    # A store of blobs, as of a hub's cache: the labels are a link beside the link.
    beside = link.with_suffix(".labels.jsonl")
    beside.symlink_to(labels_path(log).rename(tmp_path / "blob"))
    assert labels_path(link) == beside
    assert read_log(link).episodes[0].success is True


def test_a_link_to_a_damaged_log_is_not_set_aside_in_its_place(written: Write, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    log, link = written(EPISODE, "b.mcap"), tmp_path / "logs" / "a.mcap"
    spoilt(log, log.stat().st_size // 2)
    link.symlink_to("../b.mcap")
    with pytest.raises(
        UserError, match=r"a\.mcap is a link to .*b\.mcap, which stays where it is; name the file itself"
    ):
        set_aside(link, tmp_path / "aside")
    assert log.exists()
    assert link.exists()
    assert not (tmp_path / "aside").exists()


@pytest.mark.parametrize("size", [0, 5, 8, 40])
def test_a_log_that_is_torn_before_its_session_does_not_stop_a_command(
    written: Write, tmp_path: Path, size: int
) -> None:
    log, empty = written(EPISODE, "b.mcap"), tmp_path / "a.mcap"
    empty.write_bytes(log.read_bytes()[:size])
    left_out = [f"{empty} ends before it says whose log it is"]
    assert find_logs([tmp_path]) == ([log], left_out)
    assert find_logs([empty]) == ([empty], [])  # named alone, it is refused by its reader
    spoilt(log, 30)
    assert find_logs([tmp_path]) == ([log], left_out)  # as is a damaged one always
