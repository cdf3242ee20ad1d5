"""What files say of themselves, read from their heads; what cannot be read is listed with its reason."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.runtime.identity import policy_id
from gipo.callbacks.checkpoint_io import AtomicCheckpointIO
from gipo.checkpoints import load_checkpoint
from gipo.commands.lineage.graph import build
from gipo.commands.lineage.picture import Box
from gipo.commands.lineage.records import (
    Ancestor,
    How,
    Key,
    Kind,
    LineageNode,
    printable,
    read_artifact,
    read_checkpoint,
    read_log,
    read_promotions,
    scan,
)
from gipo.commands.lineage.text import text
from gipo.common.errors import UserError
from robots.log import LogWriter, Session
from robots.review.promotions import Change, write_line
from tests.robots.builders import make_spec, step_row
from tests.robots.strangers import write_of_schema, write_rosbag

Chain = tuple[Path, dict[str, str]]


def artifact(identity: str) -> Key:
    return Key(Kind.ARTIFACT, identity)


def log(identity: str) -> Key:
    return Key(Kind.LOG, identity)


def checkpoint(identity: str) -> Key:
    return Key(Kind.CHECKPOINT, identity)


def test_a_checkpoint_names_what_it_learned_from_most_steps_first(made: Chain) -> None:
    folder, ids = made
    first, *logs = read_checkpoint(folder / "round1.ckpt", "round1.ckpt")
    assert first == LineageNode(
        checkpoint(ids["round1"]),
        ("round1.ckpt",),
        ("version 17", "17,000 frames", "reach-v3"),
        (
            Ancestor(artifact(ids["first"]), How.PARENT),
            Ancestor(log(ids["aaaa"]), How.LEARNED, 1200),
            Ancestor(log(ids["bbbb"]), How.LEARNED, 400),
            Ancestor(checkpoint(ids["sim"]), How.STARTED),
        ),
    )
    recorded = (Ancestor(artifact(ids["first"]), How.RECORDED),)
    assert {record.key: (record.files, record.origins) for record in logs} == {
        log(ids["aaaa"]): ((), recorded),
        log(ids["bbbb"]): ((), recorded),
    }


def test_a_checkpoint_of_simulation_came_from_nothing(made: Chain) -> None:
    (record,) = read_checkpoint(made[0] / "sim" / "last.ckpt", "last.ckpt")
    assert record.origins == ()


def test_an_artifact_names_its_checkpoint_and_knows_what_that_learned_from(made: Chain) -> None:
    folder, ids = made
    (first, source) = read_artifact(folder / "second.onnx", "second.onnx")
    assert first.key == artifact(ids["second"])
    assert (first.files, first.facts) == (("second.onnx",), ("version 17",))
    assert first.origins == (Ancestor(checkpoint(ids["round1"]), How.EXPORTED),)
    assert source == LineageNode(checkpoint(ids["round1"]), (), (), (Ancestor(artifact(ids["first"]), How.PARENT),))


def test_a_log_names_who_acted_not_who_looked_on(made: Chain) -> None:
    folder, ids = made
    first, *others = read_log(folder / "cccc.mcap", "cccc.mcap")
    assert first.key == log(ids["cccc"])
    assert first.origins == (Ancestor(artifact(ids["second"]), How.RECORDED),)
    assert first.facts == ("2026-03-01 12:00", "fake", f"shadow {ids['first'][:12]}")
    # it carries the manifests of both, so both are known without their files
    known = {record.key: record.origins for record in others}
    assert known[artifact(ids["second"])] == (Ancestor(checkpoint(ids["round1"]), How.EXPORTED),)
    assert known[artifact(ids["first"])] == (Ancestor(checkpoint(ids["sim"]), How.EXPORTED),)


def test_a_log_of_two_that_drove_in_turns_names_both(tmp_path: Path) -> None:
    two = ["d" * 64, "c" * 64]
    session = Session(make_spec().to_json(), dict.fromkeys(two, "{}"), {"turns": two})
    writer = LogWriter(tmp_path / "a.mcap", session)
    writer.event("episode_start", "", 0, 0, {"policy_id": two[0], "seed": 0})
    writer.close()
    first, *_ = read_log(tmp_path / "a.mcap", "a.mcap")
    assert first.origins == tuple(Ancestor(artifact(each), How.RECORDED) for each in two)
    assert first.facts[1:] == ("fake",)


def test_what_became_of_a_promoted_artifact(tmp_path: Path) -> None:
    (tmp_path / "deployed").mkdir()
    history = [Change("a" * 64, False, 0), Change("b" * 64, False, 60 * 10**9, "fast\x1b[2J")]
    (tmp_path / "deployed" / "promotions.jsonl").write_text("".join(map(write_line, history)))
    records, unreadable = scan(tmp_path)
    graph = build([LineageNode(artifact("b" * 64), ("p.onnx",), ("version 3",)), *records])
    assert (graph[artifact("a" * 64)].placed, unreadable) == (("deployed: replaced 1970-01-01 00:01",), [])
    assert text(graph).splitlines()[0] == (
        "artifact bbbbbbbbbbbb  p.onnx · version 3 · deployed: in place since 1970-01-01 00:01 (fast?[2J); "
        "but its policy.onnx is not there"
    )
    for data, said in ((b"held", ""), (b"another", f"; but its policy.onnx is {policy_id(b'another')[:12]}…")):
        (tmp_path / "deployed" / "policy.onnx").write_bytes(data)
        (tmp_path / "deployed" / "promotions.jsonl").write_text(write_line(Change(policy_id(b"held"), False, 0)))
        (record,) = read_promotions(tmp_path / "deployed" / "promotions.jsonl", "deployed/promotions.jsonl")
        assert record.placed == (f"deployed: in place since 1970-01-01 00:00{said}",)
    (tmp_path / "deployed" / "policy.onnx").unlink()
    (tmp_path / "deployed" / "promotions.jsonl").write_text("nonsense")
    ((name, reason),) = scan(tmp_path)[1]
    assert name == "deployed/promotions.jsonl"
    assert reason.startswith("line 1 is no change of a policy in place")


def rewritten(path: Path, **recorded: Any) -> Path:
    """The checkpoint with other entries; None removes one. Its id is computed anew unless it is given."""
    loaded = load_checkpoint(path)
    entries = {key: value for key, value in (loaded["gipo"] | recorded).items() if value is not None}
    torch.save(loaded | {"gipo": entries}, path)
    return path


def test_a_checkpoint_from_before_ids_is_known_by_its_file(chain: Chain) -> None:
    path = rewritten(chain[0] / "round1.ckpt", id=None, parent=None, logs=None, init_from=None, frames=None, task=None)
    (record,) = read_checkpoint(path, "round1.ckpt")
    assert record == LineageNode(checkpoint("none:round1.ckpt"), ("round1.ckpt",), ("version 17",))


def test_a_dataset_is_named_by_its_hash_and_not_said_to_be_missing(chain: Chain) -> None:
    entry = {"sha256": "d" * 64, "policy_ids": ["e" * 64, "f" * 64], "steps": 5, "sessions": ["a" * 32, "b" * 32]}
    first, data = read_checkpoint(rewritten(chain[0] / "round1.ckpt", logs=[entry]), "x")
    assert Ancestor(Key(Kind.DATASET, "d" * 64), How.LEARNED, 5) in first.origins
    assert [origin.key.id for origin in data.origins] == ["a" * 32, "b" * 32, "e" * 64, "f" * 64]
    assert [origin.how for origin in data.origins] == [How.EXPORTED] * 2 + [How.RECORDED] * 2
    graph = build([first, data])
    tree, missing = text(graph).split("\n\n")
    assert f"dataset {'d' * 12}  (datasets are not looked for)" in tree
    assert "  dataset" not in missing
    assert Box((graph[data.key],)).lines[:2] == (f"dataset {'d' * 12}", "datasets are not looked for")


BROKEN = {
    "id is a number": ({"id": 5}, "'id' is int, it must be a text"),
    "parent is a list": ({"parent": ["x"]}, "'parent' is list"),
    "logs are a text": ({"logs": "all of them"}, "'logs' is str, it must be a list"),
    "a log is a text": ({"logs": ["a.mcap"]}, "'logs' must be a list of objects"),
    "a log without a name": ({"logs": [{"steps": 3}]}, "without a session or sha256"),
    "policies are a number": ({"logs": [{"session": "a", "policy_ids": 3}]}, "'policy_ids' is int"),
    "another format": ({"format": 99}, "format 99"),
}


@pytest.mark.parametrize(("entries", "words"), BROKEN.values(), ids=BROKEN)
def test_a_checkpoint_with_odd_entries_is_listed_with_its_reason(
    entries: dict[str, Any], words: str, chain: Chain
) -> None:
    rewritten(chain[0] / "round1.ckpt", **entries)
    records, ((file, reason),) = scan(chain[0])
    assert file == "round1.ckpt"
    assert words in reason
    assert chain[1]["round2"] in {record.key.id for record in records}


def test_files_that_are_not_what_they_are_called_are_listed_and_hinder_nothing(chain: Chain) -> None:
    folder, ids = chain
    (folder / "other.ckpt").write_bytes(b"no checkpoint")
    (folder / "empty.mcap").write_bytes(b"")
    (folder / "cut.mcap").write_bytes((folder / "aaaa.mcap").read_bytes()[:40])
    (folder / "cut.onnx").write_bytes((folder / "first.onnx").read_bytes()[:-9])
    torch.save({"weights": torch.ones(2)}, folder / "foreign.ckpt")
    (folder / "folder.onnx").mkdir()
    (folder / "promotions.jsonl").write_bytes(b"\xff")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "of_a_library.onnx").write_bytes(b"not even looked at")
    records, unreadable = scan(folder)
    reasons = dict(unreadable)
    assert list(reasons) == ["cut.mcap", "cut.onnx", "empty.mcap", "foreign.ckpt", "other.ckpt", "promotions.jsonl"]
    assert "the file is truncated, damaged" in reasons["other.ckpt"]
    assert "no 'gipo' entry" in reasons["foreign.ckpt"]
    assert not reasons["cut.onnx"].startswith("the file: ")
    assert "ends before it says whose log it is" in reasons["cut.mcap"]
    assert reasons["promotions.jsonl"] == "the file is not UTF-8 text: byte 0 is 0xff"
    assert str(folder) not in "".join(reasons.values())
    assert {record.key.id for record in records} >= set(ids.values())


def test_logs_in_a_linked_folder_are_found_by_the_name_of_the_link(tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    LogWriter(tmp_path / "nas" / "a.mcap", Session(make_spec().to_json())).close()
    project = tmp_path / "project"
    project.mkdir()
    (project / "logs").symlink_to("../nas")
    (project / "self").symlink_to(".")  # which leads in circles
    records, unreadable = scan(project)
    assert not unreadable
    assert [record.files for record in records if record.key.kind is Kind.LOG] == [("logs/a.mcap",)]


def test_strangers_are_called_what_they_are(tmp_path: Path) -> None:
    write_rosbag(tmp_path / "bag.mcap")
    write_of_schema(tmp_path / "newer.mcap")
    (tmp_path / "zeros.mcap").write_bytes(bytes(4096))
    write_of_schema(tmp_path / "older.mcap", 0)
    records, unreadable = scan(tmp_path)
    assert [record.files for record in records] == [("older.mcap",)]
    assert dict(unreadable) == {
        "bag.mcap": "the file is no log of gipo-robot: an MCAP file of profile 'ros2'",
        "newer.mcap": "the log has schema 2, this gipo reads up to 1; upgrade gipo",
        "zeros.mcap": "the file ends before it says whose log it is: zeros from byte 0 on: the file system never wrote "
        "what follows",
    }


def test_only_the_beginning_of_a_log_is_read(chain: Chain) -> None:
    path = chain[0] / "long.mcap"
    shutil.copy(chain[0] / "aaaa.mcap", path)
    whole = read_log(path, "long.mcap")
    with open(path, "r+b") as file:  # a hole of 16 GB, of which reading a part would already be damage
        file.seek(-60, os.SEEK_END)
        file.write(b"\xff" * 60)
        file.truncate(16 << 30)
    assert read_log(path, "long.mcap") == whole


def test_a_torn_log_that_holds_no_episode_yet_still_says_whose_it_is(tmp_path: Path) -> None:
    def written(name: str, **manifests: str) -> Path:
        named = {key * 64: text for key, text in manifests.items()}
        writer = LogWriter(tmp_path / name, Session(make_spec().to_json(), named))
        writer.event("reset", "nothing happened")
        writer.close()
        return tmp_path / name

    record, *_ = read_log(written("one.mcap", a="{}"), "x")
    assert record.origins == (Ancestor(artifact("a" * 64), How.RECORDED),)
    record, *_ = read_log(written("two.mcap", a="{}", b="[]"), "x")
    assert record.origins == ()  # either may have acted
    with pytest.raises(Exception, match="not JSON"):
        read_log(written("three.mcap", a="{"), "x")


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        scan(tmp_path / "nowhere")


def test_terminal_escapes_do_not_come_through(chain: Chain) -> None:
    folder, _ = chain
    rewritten(folder / "round1.ckpt", task="\x1b[2Jreach", parent="\x1b]0;x\x07")
    (folder / "round2.ckpt").rename(folder / "\x1b[31m.ckpt")
    records, _ = scan(folder)
    shown = [record.key.id for record in records]
    for record in records:
        shown += [*record.facts, *record.files, *(origin.key.id for origin in record.origins)]
    assert all(text.isprintable() for text in shown)
    assert printable("\x1b[2Ja") == "?[2Ja"


def test_saving_again_keeps_the_provenance_and_the_id(chain: Chain) -> None:
    path = chain[0] / "round1.ckpt"
    before = read_checkpoint(path, "x")
    AtomicCheckpointIO().save_checkpoint(load_checkpoint(path), path)
    assert read_checkpoint(path, "x") == before


def test_the_opening_skips_what_is_no_start(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json(), {"a" * 64: "{}", "b" * 64: "{}"}))
    writer.event("reset", data={"policy_id": "a" * 64})
    writer.step(step_row(0, 5, 3))
    writer.event(
        "episode_start", episode=0, data={"policy_id": "b" * 64, "note": json.dumps({"kind": "episode_start"})}
    )
    writer.event("episode_start", episode=1, data={"policy_id": "a" * 64})
    writer.close()
    record, *_ = read_log(tmp_path / "a.mcap", "a.mcap")
    assert record.origins == (Ancestor(artifact("b" * 64), How.RECORDED),)


def test_what_cannot_be_looked_into_is_named_but_for_what_is_hidden(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    for name in ("week", ".venv/python"):
        (tmp_path / name).symlink_to("/nowhere")
    assert scan(tmp_path) == ([], [("week", "a link to /nowhere, which is not there")])
