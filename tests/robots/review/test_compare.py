"""Candidate against deployed: which episodes are a pair, what is in none, and what is concluded of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gipo.common.errors import UserError
from robots.cli import main
from robots.log import LogWriter, Session, append_label
from robots.review.compare import compare
from tests.robots.builders import make_spec, step_row

DEPLOYED, CANDIDATE = "d" * 64, "c" * 64


def drive(
    path: Path,
    policy: str,
    outcomes: Sequence[bool | None],
    seed: int = 0,
    first: int = 0,
    ended: bool = True,
    **settings: Any,
) -> Path:
    """A log of episodes of one step, with these outcomes."""
    path.parent.mkdir(exist_ok=True)
    writer = LogWriter(path, Session(make_spec().to_json(), {}, {"robot": "sim", "seed": seed, **settings}))
    for number, success in enumerate(outcomes, first):
        writer.event("episode_start", "", number, 0, {"policy_id": policy, "seed": seed})
        writer.step(dataclasses.replace(step_row(0, 5, 3), episode=number, step=0, reward=2.0))
        if success is not None:
            writer.event("outcome", "", number, 1, {"success": success})
        if ended:
            writer.event("episode_end", "steps", number, 1, {})
    writer.close()
    return path


def test_a_candidate_that_is_better(tmp_path: Path) -> None:
    drive(tmp_path / "a" / "d.mcap", DEPLOYED, [False] * 20)
    drive(tmp_path / "b" / "c.mcap", CANDIDATE, [True] * 20)
    said = compare(tmp_path / "a", tmp_path / "b")
    assert "deployed    dddddddddddd…  success 0.00 [0.00, 0.16], mean return 2.0" in said
    assert "pairs       20: only the candidate succeeded in 20, only the deployed in 0\n" in said
    assert said.endswith("the candidate succeeds more often: known after 10 pairs")
    assert compare(tmp_path / "b", tmp_path / "a").endswith("the candidate succeeds less often: known after 10 pairs")


def test_few_pairs_say_to_go_on(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False, True, False])
    drive(tmp_path / "c.mcap", CANDIDATE, [True, True, False])
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "difference  +0.33 [-0.80, +1.00]" in said
    assert said.endswith("not yet known: drive more pairs, and look again, as often as you like")


def test_what_was_told_stays_told(tmp_path: Path) -> None:
    """That later pairs are worse does not take back what the first have shown."""
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 20 + [True] * 5)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 20 + [False] * 5)
    assert "known after 10 pairs" in compare(tmp_path / "d.mcap", tmp_path / "c.mcap")


def test_pairs_that_cannot_be_of_one_kind_are_told(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 40 + [True] * 160)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 40 + [False] * 160)
    assert compare(tmp_path / "d.mcap", tmp_path / "c.mcap").endswith("(is the robot changing?)")


def test_only_what_was_begun_alike_is_a_pair(tmp_path: Path) -> None:
    """Episode 3 of seed 10 begins as episode 0 of seed 13; what only one has is counted."""
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 5, seed=10)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 4, seed=13)
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert (
        "pairs       2: only the candidate succeeded in 2, only the deployed in 0; 5 episodes begun by one alone"
        in said
    )


def test_sessions_of_a_folder_go_on_where_the_others_ended(tmp_path: Path) -> None:
    for first in (0, 2):
        drive(tmp_path / "a" / f"{first}.mcap", DEPLOYED, [False] * 2, first=first)
        drive(tmp_path / "b" / f"{first}.mcap", CANDIDATE, [True] * 2, first=first)
    assert "pairs       4:" in compare(tmp_path / "a", tmp_path / "b")


def test_a_start_that_was_driven_twice_is_two_pairs(tmp_path: Path) -> None:
    for session in range(2):
        drive(tmp_path / "a" / f"{session}.mcap", DEPLOYED, [False, bool(session)])
    drive(tmp_path / "b" / "c.mcap", CANDIDATE, [True, True])
    assert "pairs       2: only the candidate succeeded in 2" in compare(tmp_path / "a", tmp_path / "b")
    drive(tmp_path / "b" / "e.mcap", CANDIDATE, [True, True])
    assert "pairs       4: only the candidate succeeded in 3" in compare(tmp_path / "a", tmp_path / "b")


def test_a_label_is_the_last_word_and_what_is_discarded_counts_nowhere(tmp_path: Path) -> None:
    deployed = drive(tmp_path / "d.mcap", DEPLOYED, [False, False, None])
    log = drive(tmp_path / "c.mcap", CANDIDATE, [False, True, True])
    from robots.log import read_log

    session = read_log(log).header.session
    append_label(log, session, 0, True, None, None)
    append_label(log, session, 1, None, None, True)
    said = compare(deployed, log)
    assert "pairs       1: only the candidate succeeded in 1" in said
    assert "1 episodes of unknown outcome; 1 episodes discarded or without an end" in said


def test_episodes_whose_end_the_log_does_not_see_are_left_out(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 3)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 3, ended=False)
    with pytest.raises(UserError, match="no episode of the one was begun as one of the other"):
        compare(tmp_path / "d.mcap", tmp_path / "c.mcap")


def test_sessions_that_were_not_driven_alike_are_named(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 3, set=["x=1"])
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 3, set=["x=2"])
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "note        they were not driven alike: set ['x=1'] and ['x=2']\n" in said


def test_each_side_is_of_one_policy(tmp_path: Path) -> None:
    drive(tmp_path / "a" / "d.mcap", DEPLOYED, [False])
    drive(tmp_path / "a" / "c.mcap", CANDIDATE, [True])
    with pytest.raises(UserError, match="must hold episodes of one policy, and holds those of cccccccccccc, dddddddd"):
        compare(tmp_path / "a", tmp_path / "a" / "c.mcap")
    with pytest.raises(UserError, match=r"hold the same session, .*; name logs of two"):
        compare(tmp_path / "a" / "c.mcap", tmp_path / "a" / "c.mcap")


def test_a_policy_may_be_compared_with_itself_driven_otherwise(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 12, deterministic=True)
    drive(tmp_path / "c.mcap", DEPLOYED, [True] * 12, deterministic=False)
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "they were not driven alike: deterministic True and False" in said
    assert said.endswith("known after 10 pairs")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deployed = drive(tmp_path / "d.mcap", DEPLOYED, [False] * 3)
    candidate = drive(tmp_path / "c.mcap", CANDIDATE, [True] * 3)
    assert main(["compare", str(deployed), str(candidate)]) == 0
    assert "candidate   cccccccccccc…" in capsys.readouterr().out
    assert main(["compare", str(deployed), str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
