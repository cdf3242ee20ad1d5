"""Which policy a robot is to run: what may replace it, the way back, and that no end of a command loses either."""

import dataclasses
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.runtime.check import check_file
from deploy.runtime.identity import file_id
from gipo.common.boundary import EXIT_NOT_KNOWN
from gipo.common.errors import UserError
from robots.cli import main
from robots.review.compare import compare
from robots.review.paired import Paired
from robots.review.promote import NotKnown, promote, rollback
from robots.review.promotions import read_history
from tests.robots.artifacts import changed
from tests.robots.review.test_compare import drive

Policies = dict[str, Path]


def in_place(folder: Path) -> str:
    """The id of the policy that a robot would run, which the history names last."""
    found = file_id(folder / "policy.onnx")
    assert read_history(folder / "promotions.jsonl")[-1].policy_id == found
    return found


def driven(folder: Path, ids: Sequence[str], better: Sequence[bool], worse: Sequence[bool], **candidate: Any) -> Any:
    """What pairs say in which the candidate, and the policy in place, had these outcomes."""
    one = drive(folder / "a.mcap", ids[0], worse)
    return compare([one], [drive(folder / "b.mcap", ids[1], better, **candidate)])


def test_there_and_back(policies: Policies, tmp_path: Path) -> None:
    token, newer, gaussian = (file_id(policies[name]) for name in ("token", "newer", "gaussian"))
    place = tmp_path / "arm" / "deployed"
    assert promote(policies["token"], place) == (
        f"in place: {token[:12]}… (version 7); run it with --policy {place / 'policy.onnx'}"
    )
    said = promote(policies["newer"], place, "a new gripper")
    assert f"in place: {newer[:12]}… (version 8), after {token[:12]}…; " in said
    promote(policies["gaussian"], place, "a trial")
    assert in_place(place) == gaussian
    assert f"in place: {newer[:12]}… (version 8), after {gaussian[:12]}…; " in rollback(place, "it shook")
    rollback(place)
    assert in_place(place) == token
    with pytest.raises(UserError, match=f"no policy was in place in .*deployed before {token[:12]}"):
        rollback(place)
    assert [(each.back, each.because) for each in read_history(place / "promotions.jsonl")] == [
        (False, ""), (False, "a new gripper"), (False, "a trial"), (True, "it shook"), (True, ""),
    ]  # fmt: skip


def test_pairs_promote_the_candidate_that_is_known_to_be_better(policies: Policies, tmp_path: Path) -> None:
    ids = [file_id(policies[name]) for name in ("token", "newer")]
    promote(policies["token"], tmp_path / "d")
    found = driven(tmp_path, ids, [True] * 20, [False] * 20)
    promote(policies["newer"], tmp_path / "d", pairs=found)
    kept = read_history(tmp_path / "d" / "promotions.jsonl")[-1].pairs
    assert kept is not None
    assert (kept.count, kept.difference, kept.high) == (20, 1.0, 1.0)
    assert (kept.low, sorted(kept.sessions)) == (
        found.paired.looks[-1, 0],
        sorted(found.deployed.sessions | found.candidate.sessions),
    )


def test_pairs_that_do_not_tell_promote_nobody(policies: Policies, tmp_path: Path) -> None:
    ids = [file_id(policies[name]) for name in ("token", "newer")]
    place = tmp_path / "d"
    promote(policies["token"], place)
    before = (place / "promotions.jsonl").read_bytes()
    few = driven(tmp_path / "few", ids, [True] * 3, [False] * 3)
    with pytest.raises(NotKnown, match=r"not yet known: .* not promoted without --because TEXT"):
        promote(policies["newer"], place, pairs=few)
    worse = driven(tmp_path / "worse", ids, [False] * 20, [True] * 20)
    with pytest.raises(UserError, match=r"the candidate succeeds less often: .* not promoted without --because") as no:
        promote(policies["newer"], place, pairs=worse)
    assert not isinstance(no.value, NotKnown)  # more pairs are not what is missing
    assert (place / "promotions.jsonl").read_bytes() == before
    assert in_place(place) == ids[0]
    promote(policies["newer"], place, "the old gripper is gone", few)
    assert str(read_history(place / "promotions.jsonl")[-1].pairs).startswith("3 pairs: +1.00 [")


def test_pairs_that_may_say_something_else_promote_nobody(policies: Policies, tmp_path: Path) -> None:
    ids = [file_id(policies[name]) for name in ("token", "newer")]
    place = tmp_path / "d"
    promote(policies["token"], place)
    outcomes = [True] * 20, [False] * 20
    unlike = driven(tmp_path / "unlike", ids, *outcomes, steps=300)
    with pytest.raises(UserError, match="they were not driven alike: steps none and 300; it is not promoted without"):
        promote(policies["newer"], place, pairs=unlike)
    helped = driven(tmp_path / "helped", ids, *outcomes, helped=True)
    with pytest.raises(UserError, match="a person acted in 0 episodes of the deployed policy, 20 of the candidate; it"):
        promote(policies["newer"], place, pairs=helped)
    nonsense = dataclasses.replace(helped, paired=Paired(np.ones(1), np.full((1, 2), np.nan)))
    with pytest.raises(UserError, match="no difference agrees with all pairs"):
        promote(policies["newer"], place, "why not", nonsense)
    assert in_place(place) == ids[0]
    promote(policies["newer"], place, "the operator only cleared the table", helped)
    kept = read_history(place / "promotions.jsonl")[-1].pairs
    assert kept is not None
    assert kept.doubts == tuple(helped.doubts)


def test_pairs_of_others_are_no_evidence(policies: Policies, tmp_path: Path) -> None:
    ids = [file_id(policies[name]) for name in ("token", "newer")]
    found = driven(tmp_path, ids, [True] * 20, [False] * 20)
    with pytest.raises(UserError, match=r"no policy is in place in .* leave --pairs out"):
        promote(policies["newer"], tmp_path / "d", pairs=found)
    promote(policies["newer"], tmp_path / "d")
    one, other = (f"{each[:12]}…" for each in ids)
    words = f"the pairs are of {one} and {other}, in place and candidate are {other} and {one}"
    with pytest.raises(UserError, match=words):
        promote(policies["token"], tmp_path / "d", "why not", found)


def test_what_may_not_follow(policies: Policies, tmp_path: Path) -> None:
    place = tmp_path / "d"
    promote(policies["token"], place)
    with pytest.raises(UserError, match="is in place already"):
        promote(policies["token"], place, "again")
    with pytest.raises(UserError, match="name the log of pairs which tell that the candidate is better"):
        promote(policies["newer"], place)
    with pytest.raises(UserError, match=r"differ in manifest.observation_names; they are not policies for one robot"):
        promote(policies["numbered"], place, "why not")
    slower = changed(policies["newer"], tmp_path / "slower.onnx", control_rate_hz=40.0)
    with pytest.raises(UserError, match="at 80 Hz, the other at 40 Hz"):
        promote(slower, place, "why not")
    golden = check_file(policies["newer"]).manifest.golden
    other = dataclasses.replace(golden, log_prob=tuple(tuple(each - 1 for each in row) for row in golden.log_prob))
    edited = changed(policies["newer"], tmp_path / "edited.onnx", golden=other)
    with pytest.raises(UserError, match=r"edited.onnx: golden vector 0"):
        promote(edited, place, "why not")
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(policies["newer"].read_bytes()[:-9])
    with pytest.raises(UserError, match=r"torn.onnx: "):
        promote(torn, place, "why not")
    assert in_place(place) == file_id(policies["token"])


def test_a_policy_that_nobody_promoted_is_not_written_over(policies: Policies, tmp_path: Path) -> None:
    place = tmp_path / "d"
    place.mkdir()
    there = place / "policy.onnx"
    there.write_bytes(policies["newer"].read_bytes())
    with pytest.raises(UserError, match=r"policy.onnx was put there by hand, or is damaged .* move it away"):
        promote(policies["token"], place, "why not")
    there.unlink()
    promote(policies["token"], place)
    there.write_bytes(policies["newer"].read_bytes())
    with pytest.raises(UserError, match=r"policy.onnx was put there by hand"):
        promote(policies["gaussian"], place, "why not")
    assert file_id(there) == file_id(policies["newer"])
    said = rollback(place)
    aside = place / f"found-{file_id(policies['newer'])[:12]}.onnx"
    assert said.endswith(f"what was there, {file_id(policies['newer'])[:12]}…, is {aside}")
    assert (in_place(place), file_id(aside)) == (file_id(policies["token"]), file_id(policies["newer"]))


def test_a_damaged_history_is_left_as_its_message_says(policies: Policies, tmp_path: Path) -> None:
    first, second = policies["token"], policies["newer"]
    place = tmp_path / "arm"
    promote(first, place)
    (place / "promotions.jsonl").write_text("cut")
    for command in (lambda: promote(second, place, "by hand"), lambda: rollback(place)):
        with pytest.raises(UserError, match=r"line 1 is no change.*move the file and policy.onnx away"):
            command()
    for name in ("promotions.jsonl", "policy.onnx"):
        (place / name).rename(tmp_path / name)
    promote(second, place)
    assert in_place(place) == file_id(second)
    assert len(list((place / "policies").iterdir())) == 2


def test_what_was_undone_by_hand_stays_so_until_a_command_is_told(policies: Policies, tmp_path: Path) -> None:
    place = tmp_path / "d"
    for name in ("token", "newer", "gaussian"):
        promote(policies[name], place, "a trial")
    for name, after in (("newer", "newer"), ("token", "gaussian")):
        shutil.copy(policies[name], place / "policy.onnx")
        with pytest.raises(UserError, match="a change was cut short, or undone by hand; gipo-robot rollback makes"):
            promote(policies["numbered"], place, "why not")
        assert file_id(place / "policy.onnx") == file_id(policies[name])
        rollback(place)
        assert in_place(place) == file_id(policies[after])
        if after == "newer":
            promote(policies["gaussian"], place, "once more")
    assert len(read_history(place / "promotions.jsonl")) == 5


def test_neither_way_needs_what_it_leaves_behind(policies: Policies, tmp_path: Path) -> None:
    place = tmp_path / "d"
    for name in ("token", "newer"):
        promote(policies[name], place, "a trial")
    newer = file_id(policies["newer"])
    (place / "policies" / f"{newer[:12]}.onnx").unlink()
    promote(policies["gaussian"], place, "its copy is gone")
    (place / "policy.onnx").unlink()
    (place / "policies" / f"{file_id(policies['gaussian'])[:12]}.onnx").write_bytes(b"torn")
    rollback(place)
    assert in_place(place) == newer


def test_what_is_in_place_is_kept_before_it_is_replaced_also_where_policies_was_emptied(
    policies: Policies, tmp_path: Path
) -> None:
    place, ids = tmp_path / "d", {name: file_id(path) for name, path in policies.items()}
    for name in ("token", "newer"):
        promote(policies[name], place, "a trial")
    shutil.rmtree(place / "policies")
    promote(policies["gaussian"], place, "to save room")
    rollback(place)
    assert in_place(place) == ids["newer"]
    shutil.rmtree(place / "policies")
    (place / "policy.onnx").unlink()
    promote(policies["newer"], place)
    assert [file_id(each) for each in (place / "policies").iterdir()] == [ids["newer"]]


def test_a_kept_artifact_that_was_damaged_is_not_put_back(policies: Policies, tmp_path: Path) -> None:
    place = tmp_path / "d"
    promote(policies["token"], place)
    promote(policies["newer"], place, "a trial")
    kept = place / "policies" / f"{file_id(policies['token'])[:12]}.onnx"
    kept.write_bytes(policies["gaussian"].read_bytes())
    with pytest.raises(UserError, match="which is not the one required"):
        rollback(place)
    assert in_place(place) == file_id(policies["newer"])


def test_a_folder_that_is_no_place(tmp_path: Path, policies: Policies) -> None:
    with pytest.raises(UserError, match=r"it has no promotions.jsonl; name what was given to promote --to"):
        rollback(tmp_path)
    (tmp_path / "promotions.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        rollback(tmp_path)
    pairs = driven(tmp_path, ["a" * 64, "b" * 64], [True], [True])
    for place in (tmp_path, tmp_path / "nowhere" / "deep"):
        with pytest.raises(UserError, match=f"no policy is in place in {place} that pairs could be of"):
            promote(policies["token"], place, pairs=pairs)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "first" / "policy.onnx").mkdir(parents=True)
    with pytest.raises(UserError, match=r"policy.onnx is no file"):
        promote(policies["token"], tmp_path / "first")
    assert [each.name for each in (tmp_path / "first").iterdir()] == ["policy.onnx"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot change .*/file: \S*/file is a file; name a folder"):
        promote(policies["token"], tmp_path / "file")


KILLED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from gipo.common import files
from robots.review import promote
number, calls = int(sys.argv[1]), [0]
def fatal(whole):
    def write(*arguments):
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        whole(*arguments)
    return write
promote.write_bytes, promote.write_text = fatal(promote.write_bytes), fatal(promote.write_text)
promote.promote(Path(sys.argv[2]), Path(sys.argv[3]), "a trial")
"""


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_kill_at_any_write_is_made_good_by_the_next_command(policies: Policies, tmp_path: Path, write: int) -> None:
    place = tmp_path / "d"
    promote(policies["token"], place)
    command = [sys.executable, "-c", KILLED, str(write), str(policies["newer"]), str(place)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert file_id(place / "policy.onnx") == file_id(policies["token"])
    if write == 3:
        with pytest.raises(UserError, match="a change was cut short"):
            promote(policies["gaussian"], place, "after the kill")
        rollback(place)
    assert in_place(place) == file_id(policies["token"])
    promote(policies["gaussian"], place, "after the kill")
    rollback(place)
    assert in_place(place) == file_id(policies["token"])


FULL = """
import resource, sys
from robots.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # room for the history, and for no artifact
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_without_room_leaves_what_was_in_place(policies: Policies, tmp_path: Path) -> None:
    place = tmp_path / "d"
    promote(policies["token"], place)
    promote(policies["newer"], place, "so that it is kept")
    rollback(place)
    before = (place / "promotions.jsonl").read_bytes()
    command = [
        sys.executable,
        "-c",
        FULL,
        "promote",
        str(policies["newer"]),
        "--to",
        str(place),
        "--because",
        "a trial",
    ]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        2, f"gipo-robot: error: cannot write {place / 'policy.onnx'}: File too large\n"
    )  # fmt: skip
    assert (place / "promotions.jsonl").read_bytes() == before
    assert in_place(place) == file_id(policies["token"])


def test_a_roll_back_without_room_leaves_what_was_found(policies: Policies, tmp_path: Path) -> None:
    place = tmp_path / "d"
    promote(policies["token"], place)
    shutil.copy(policies["newer"], place / "policy.onnx")
    ended = subprocess.run([sys.executable, "-c", FULL, "rollback", str(place)], check=False, capture_output=True)
    assert ended.returncode == 2
    assert file_id(place / "policy.onnx") == file_id(policies["newer"])
    assert sorted(each.name for each in place.iterdir()) == ["policies", "policy.onnx", "promotions.jsonl"]


@pytest.mark.parametrize("again", [lambda place, policy: promote(policy, place), lambda place, _: rollback(place)])
def test_a_place_that_has_lost_its_policy_gets_it_again(
    again: Callable[[Path, Path], str], policies: Policies, tmp_path: Path
) -> None:
    place = tmp_path / "d"
    promote(policies["token"], place)
    promote(policies["newer"], place, "a trial")
    (place / "policy.onnx").unlink()
    again(place, policies["newer"])
    assert in_place(place) == file_id(policies["newer"])
    assert len(read_history(place / "promotions.jsonl")) == 2


def test_two_at_once_follow_each_other(policies: Policies, tmp_path: Path) -> None:
    place = tmp_path / "d"
    promote(policies["token"], place)
    commands = [
        [sys.executable, "-m", "robots.cli", "promote", str(policies[name]), "--to", str(place), "--because", "race"]
        for name in ("newer", "gaussian")
    ]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for command in commands]
    assert [(process.communicate(), process.returncode)[1] for process in running] == [0, 0]
    assert len(read_history(place / "promotions.jsonl")) == 3
    rollback(place)
    rollback(place)
    assert in_place(place) == file_id(policies["token"])


def logs(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("a.mcap", "b.mcap")]


def test_from_the_command_line(policies: Policies, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [file_id(policies[name]) for name in ("token", "newer")]
    place = str(tmp_path / "d")
    few, many = tmp_path / "few", tmp_path / "many"
    for folder, count in ((few, 3), (many, 20)):
        driven(folder, ids, [True] * count, [False] * count)
    assert main(["promote", str(policies["token"]), "--to", place]) == 0
    assert main(["promote", str(policies["newer"]), "--to", place, "--pairs", *logs(few)]) == EXIT_NOT_KNOWN
    assert "not yet known" in capsys.readouterr().err
    assert main(["promote", str(policies["newer"]), "--to", place, "--because", "  "]) == 2
    assert "is in place; name the log of pairs" in capsys.readouterr().err
    assert main(["promote", str(policies["newer"]), "--to", place, "--pairs", *logs(many)]) == 0
    assert "known since the first 10 pairs\nin place: " in capsys.readouterr().out
    assert main(["rollback", place, "--because", "it shook"]) == 0
    assert in_place(Path(place)) == ids[0]
