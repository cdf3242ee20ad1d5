"""Candidate against deployed: which episodes are a pair, what is in none, and what is concluded of them."""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.common.boundary import EXIT_NOT_KNOWN
from gipo.common.errors import UserError
from robots.cli import main
from robots.log import LogWriter, Session, append_label, find_logs, labels_path, read_log
from robots.review import compare as review
from robots.review.sides import AGAIN
from robots.spec import RobotSpec
from tests.robots.builders import make_spec, step_row

HEAD = "deployed    dddddddddddd…  success 0.00 [0.00, 0.16], mean return 2.0"
DEPLOYED, CANDIDATE = "d" * 64, "c" * 64


def drive(
    path: Path,
    policy: str,
    outcomes: Sequence[bool | None],
    seed: int = 0,
    first: int = 0,
    ended: bool = True,
    helped: bool = False,
    taken: bool = False,
    start: dict[str, Any] | None = None,
    spec: RobotSpec | None = None,
    reward: float = 2.0,
    **settings: Any,
) -> Path:
    """A log of episodes of one step, with these outcomes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = LogWriter(path, Session((spec or make_spec()).to_json(), {}, {"robot": "sim", "seed": seed, **settings}))
    for number, success in enumerate(outcomes, first):
        writer.event("episode_start", "", number, 0, {"policy_id": policy, "seed": seed + number} | (start or {}))
        source = "person" if helped else "policy"
        writer.step(dataclasses.replace(step_row(1, 5, 3), episode=number, step=0, reward=reward, source=source))
        if taken:
            writer.event("takeover", "a person took over", number, 1, {})
        if success is not None:
            writer.event("outcome", "", number, 1, {"success": success})
        if ended:
            writer.event("episode_end", "steps", number, 1, {})
    writer.close()
    return path


def seeds(found: review.Comparison) -> list[int]:
    """Of the pairs, in their order."""
    return [seed for _, seed in found.starts]


def compare(deployed: Path, candidate: Path) -> str:
    """What the command prints."""
    return review.compare(*(find_logs([each])[0] for each in (deployed, candidate))).text()


def test_a_candidate_that_is_better(tmp_path: Path) -> None:
    drive(tmp_path / "a" / "d.mcap", DEPLOYED, [False] * 20)
    drive(tmp_path / "b" / "c.mcap", CANDIDATE, [True] * 20)
    said = compare(tmp_path / "a", tmp_path / "b")
    assert said.startswith(HEAD)
    assert "pairs       20: only the candidate succeeded in 20, only the deployed in 0\n" in said
    assert said.endswith("the candidate succeeds more often: known since the first 10 pairs")
    assert compare(tmp_path / "b", tmp_path / "a").endswith(
        "the candidate succeeds less often: known since the first 10 pairs"
    )


def test_a_reward_that_is_no_number_is_in_no_mean(tmp_path: Path) -> None:
    drive(tmp_path / "a" / "1.mcap", DEPLOYED, [True] * 3)
    drive(tmp_path / "a" / "2.mcap", DEPLOYED, [True], seed=3, reward=math.nan)
    drive(tmp_path / "b" / "c.mcap", CANDIDATE, [True] * 4, reward=math.inf)
    said = compare(tmp_path / "a", tmp_path / "b")
    assert "], mean return 2.0 (1 of 4 have a reward that is not finite)\n" in said
    assert "], mean return unknown (4 of 4 have a reward that is not finite)\n" in said


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
    assert "known since the first 10 pairs" in compare(tmp_path / "d.mcap", tmp_path / "c.mcap")


def test_pairs_that_cannot_be_of_one_kind_are_told(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 40 + [True] * 160)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 40 + [False] * 160)
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert said.endswith("or the starts?")
    assert "difference  -0.60\n" in said


def test_only_what_was_begun_alike_is_a_pair(tmp_path: Path) -> None:
    """Episode 3 of seed 10 begins as episode 0 of seed 13; what only one has is counted."""
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 5, seed=10)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 4, seed=13)
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "mean return 2.0; 3 begun by it alone\n" in said
    assert "mean return 2.0; 2 begun by it alone\n" in said
    assert "pairs       2: only the candidate succeeded in 2, only the deployed in 0\n" in said


def test_sessions_of_a_folder_go_on_where_the_others_ended(tmp_path: Path) -> None:
    for first in (0, 2):
        drive(tmp_path / "a" / f"{first}.mcap", DEPLOYED, [False] * 2, first=first)
        drive(tmp_path / "b" / f"{first}.mcap", CANDIDATE, [True] * 2, first=first)
    assert "pairs       4:" in compare(tmp_path / "a", tmp_path / "b")


def test_a_start_that_was_driven_again_counts_once_as_it_was_first(tmp_path: Path) -> None:
    """In simulation it is a copy: repeated often enough, two pairs would seem to tell."""
    for session in range(6):
        drive(tmp_path / "a" / f"{9 - session}.mcap", DEPLOYED, [bool(session), False])
        drive(tmp_path / "b" / f"{session}.mcap", CANDIDATE, [not session, True])
    said = compare(tmp_path / "a", tmp_path / "b")
    assert "pairs       2: only the candidate succeeded in 2, only the deployed in 0" in said
    assert said.count("10 begun again from a seed that was driven (go on with --first)") == 2
    assert said.endswith("as often as you like")


def test_pairs_come_in_the_order_in_which_they_were_driven(tmp_path: Path) -> None:
    """So that what one looks at later goes on from what one has looked at, whichever side is driven later."""
    drive(tmp_path / "b" / "0.mcap", CANDIDATE, [False] * 12 + [True] * 12)
    drive(tmp_path / "a" / "1.mcap", DEPLOYED, [False] * 12, first=12)
    before = review.compare(*(find_logs([tmp_path / each])[0] for each in "ab"))
    assert before.paired.conclusion.endswith("more often: known since the first 10 pairs")
    drive(tmp_path / "a" / "0.mcap", DEPLOYED, [True] * 12)
    found = review.compare(*(find_logs([tmp_path / each])[0] for each in "ab"))
    assert seeds(found) == [*range(12, 24), *range(12)]
    assert np.array_equal(found.paired.looks[:12], before.paired.looks)
    assert found.paired.conclusion == before.paired.conclusion


def test_a_pair_is_there_once_the_later_of_the_two_was_driven(tmp_path: Path) -> None:
    drive(tmp_path / "a" / "0.mcap", DEPLOYED, [False] * 4)
    drive(tmp_path / "b" / "1.mcap", CANDIDATE, [True] * 2, first=2)
    drive(tmp_path / "b" / "0.mcap", CANDIDATE, [True] * 2)
    assert seeds(review.compare(*(find_logs([tmp_path / each])[0] for each in "ab"))) == [2, 3, 0, 1]


def test_no_order_of_labels_makes_a_difference(tmp_path: Path) -> None:
    """Who labels all successes first, and then all failures, finds what one finds who labels as they were driven."""
    episodes = range(40)
    sides = {DEPLOYED: {n: n % 2 == 0 for n in episodes}, CANDIDATE: {n: n // 2 % 2 == 0 for n in episodes}}
    texts = []
    for name, key in (("driven", lambda n, _: n), ("sorted", lambda n, success: (not success, n))):
        logs = []
        for policy, outcomes in sides.items():
            logs.append(drive(tmp_path / name / f"{policy}.mcap", policy, [None] * len(episodes)))
            session = read_log(logs[-1]).header.session
            for number in sorted(episodes, key=lambda n, of=outcomes, by=key: by(n, of[n])):  # type: ignore[misc]
                append_label(logs[-1], session, number, outcomes[number], None, None)
        append_label(logs[-1], session, 0, None, -1.0, None)  # and one that says nothing of success
        found = review.compare(*([log] for log in logs))
        assert seeds(found) == [*episodes]
        assert not found.paired.changing
        texts.append([*found.paired.rows, ("", found.paired.conclusion)])
    assert texts[0] == texts[1]
    assert ("pairs", "40: only the candidate succeeded in 10, only the deployed in 10") in texts[0]
    assert texts[0][-1][1].startswith("not yet known")


def test_a_mean_outside_of_its_interval_is_told(tmp_path: Path) -> None:
    """The candidate is ahead in the first pairs, and as far behind in those after them: they are not of one kind."""
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 12 + [True] * 12)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 12 + [False] * 12)
    found = review.compare([tmp_path / "d.mcap"], [tmp_path / "c.mcap"])
    assert found.paired.changing
    assert review.CHANGING in found.doubts
    assert f"note        {review.CHANGING}\n" in found.text()


def test_another_robot_is_told(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 3)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 3, spec=make_spec(name="another", control_rate_hz=20.0))
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert re.search(r"not driven alike: spec fake, 80.0 Hz, \w{6} and another, 20.0 Hz, \w{6}\n", said)


def test_what_a_person_helped_with_is_told(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 3)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 3, helped=True, operator="keyboard")
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "note        a person acted in 0 episodes of the deployed policy, 3 of the candidate\n" in said
    assert "they were not driven alike: operator none and keyboard\n" in said


def test_a_takeover_that_ends_an_episode_before_the_persons_first_step_is_told(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 2, taken=True)
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 2)
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "note        a person acted in 2 episodes of the deployed policy, 0 of the candidate\n" in said


def test_what_an_episode_says_of_itself_is_nearer_than_what_its_session_was_asked_for(tmp_path: Path) -> None:
    for name, policy, said in (("d", DEPLOYED, True), ("c", CANDIDATE, False)):
        drive(tmp_path / f"{name}.mcap", policy, [True] * 2, start={"deterministic": said}, deterministic=False)
    found = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "note        they were not driven alike: deterministic True and False\n" in found


def test_a_label_is_the_last_word_and_what_is_discarded_counts_nowhere(tmp_path: Path) -> None:
    deployed = drive(tmp_path / "d.mcap", DEPLOYED, [False, False, None])
    log = drive(tmp_path / "c.mcap", CANDIDATE, [False, True, True])
    session = read_log(log).header.session
    append_label(log, session, 0, True, None, None)
    append_label(log, session, 1, None, None, True)
    said = compare(deployed, log)
    assert "pairs       1: only the candidate succeeded in 1" in said
    assert "mean return 2.0; 1 begun by it alone; 1 of unknown outcome\n" in said
    assert "mean return 2.0; 1 begun by it alone; 1 discarded\n" in said


def test_episodes_whose_end_the_log_does_not_see_are_left_out(tmp_path: Path) -> None:
    drive(tmp_path / "d" / "0.mcap", DEPLOYED, [False] * 2, first=1)
    drive(tmp_path / "d" / "1.mcap", DEPLOYED, [False])
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 3, ended=False)
    with pytest.raises(
        UserError,
        match="nothing can be paired: 3 from seeds 0 to 2 deployed, none counts; 3 without",
    ):
        compare(tmp_path / "d", tmp_path / "c.mcap")


def test_sessions_that_were_not_driven_alike_are_named(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 3, set=["x=1"])
    drive(tmp_path / "c.mcap", CANDIDATE, [True] * 3, set=["x=2"])
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "note        they were not driven alike: set ['x=1'] and ['x=2']\n" in said


def test_each_side_is_of_one_policy(tmp_path: Path) -> None:
    drive(tmp_path / "a" / "d.mcap", DEPLOYED, [False])
    drive(tmp_path / "a" / "c.mcap", CANDIDATE, [True])
    said = "deployed logs must be of one policy, and are of cccccccccccc…, dddddddddddd…; name its logs alone"
    with pytest.raises(UserError, match=said):
        compare(tmp_path / "a", tmp_path / "a" / "c.mcap")
    with pytest.raises(UserError, match=r"both sides hold the session .*; name logs of two"):
        compare(tmp_path / "a" / "c.mcap", tmp_path / "a" / "c.mcap")


def test_a_policy_may_be_compared_with_itself_driven_otherwise(tmp_path: Path) -> None:
    drive(tmp_path / "d.mcap", DEPLOYED, [False] * 12, deterministic=True)
    drive(tmp_path / "c.mcap", DEPLOYED, [True] * 12, deterministic=False)
    said = compare(tmp_path / "d.mcap", tmp_path / "c.mcap")
    assert "note        both are the same policy\n" in said
    assert "they were not driven alike: deterministic True and False" in said
    assert said.endswith("known since the first 10 pairs")


def test_two_that_drove_in_turns_are_in_one_log(tmp_path: Path) -> None:
    log = drive(tmp_path / "a.mcap", DEPLOYED, [False], turns=[DEPLOYED, CANDIDATE])
    with pytest.raises(UserError, match="nothing can be paired: 1 from seeds 0 to 0 deployed, none counts of the"):
        review.compare([log])
    alone = drive(tmp_path / "b.mcap", CANDIDATE, [True], turns="nonsense")
    with pytest.raises(UserError, match=r"no two policies drive in turns in .*b.mcap; name one log or folder of the"):
        review.compare([log, alone])
    with pytest.raises(UserError, match=r"of cccccccccccc…, dddddddddddd…; two drove in turns in .*a.mcap: name such"):
        review.compare([alone, log], [log])
    other = drive(tmp_path / "c.mcap", CANDIDATE, [True], turns=[CANDIDATE, DEPLOYED])
    with pytest.raises(UserError, match="of one policy and one candidate, and are of cccccccccccc…, dddddddddddd…"):
        review.compare([log, other])
    third = drive(tmp_path / "d.mcap", "e" * 64, [True], turns=[DEPLOYED, CANDIDATE])
    with pytest.raises(UserError, match="and are of cccccccccccc…, dddddddddddd…, eeeeeeeeeeee…; name theirs alone"):
        review.compare([log, third])


def in_turns(path: Path, outcomes: Sequence[tuple[str, int, bool]], **settings: Any) -> Path:
    """A log of episodes of one step of two that drove in turns: who, from which seed, and how it went."""
    told = {"robot": "sim", "turns": [DEPLOYED, CANDIDATE], **settings}
    writer = LogWriter(path, Session(make_spec().to_json(), {}, told))
    for number, (policy, seed, success) in enumerate(outcomes):
        writer.event("episode_start", "", number, 0, {"policy_id": policy, "seed": seed})
        writer.step(dataclasses.replace(step_row(1, 5, 3), episode=number, step=0, reward=2.0))
        writer.event("outcome", "", number, 1, {"success": success})
        writer.event("episode_end", "steps", number, 1, {})
    writer.close()
    return path


def test_in_turns_a_pair_is_of_one_session(tmp_path: Path) -> None:
    """What was cut in the middle of a pair is half of one, whatever another session drove from that seed."""
    cut = in_turns(tmp_path / "a.mcap", [(DEPLOYED, 0, True)], steps=160)
    whole = [(DEPLOYED, 0, False), (CANDIDATE, 0, True), (CANDIDATE, 1, False), (DEPLOYED, 1, False)]
    again = in_turns(tmp_path / "b.mcap", whole, steps=20)
    found = review.compare([cut, again])
    assert (seeds(found), found.paired.difference.tolist(), found.doubts) == ([0, 1], [1.0, 0.0], [])
    assert "1 begun by it alone" in found.deployed.text(found.starts)


def test_in_turns_a_pair_that_was_driven_again_counts_once_as_it_was_first(tmp_path: Path) -> None:
    first = in_turns(tmp_path / "b.mcap", [(DEPLOYED, 0, False), (CANDIDATE, 0, True)])
    again = in_turns(tmp_path / "a.mcap", [(DEPLOYED, 0, True), (CANDIDATE, 0, False)])
    found = review.compare([again, first])
    assert found.paired.difference.tolist() == [1.0]
    assert found.candidate.left == found.deployed.left == {AGAIN: 1}


def test_only_the_settings_of_pairs_are_compared(tmp_path: Path) -> None:
    deployed = [drive(tmp_path / "d.mcap", DEPLOYED, [False] * 2, steps=5)]
    deployed.append(drive(tmp_path / "e.mcap", DEPLOYED, [False], seed=90, steps=9))
    candidate = drive(tmp_path / "c.mcap", CANDIDATE, [True] * 2, steps=5)
    assert review.compare(deployed, [candidate]).doubts == []
    swapped = drive(tmp_path / "f.mcap", CANDIDATE, [True], seed=90, steps=5)
    assert review.compare(deployed, [candidate, swapped]).doubts == ["they were not driven alike: steps 9 and 5"]


def test_logs_of_two_in_turns_may_be_named_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = [
        in_turns(tmp_path / f"{seed}.mcap", [(DEPLOYED, seed, False), (CANDIDATE, seed, True)]) for seed in range(3)
    ]
    for count in (2, 3):
        assert main(["compare", *map(str, logs[:count])]) == EXIT_NOT_KNOWN
        assert f"pairs       {count}: only the candidate succeeded in {count}" in capsys.readouterr().out


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deployed = drive(tmp_path / "d.mcap", DEPLOYED, [False] * 3)
    candidate = drive(tmp_path / "c.mcap", CANDIDATE, [True] * 3)
    assert main(["compare", str(deployed), str(candidate)]) == EXIT_NOT_KNOWN
    assert "candidate   cccccccccccc…" in capsys.readouterr().out
    drive(tmp_path / "a" / "d.mcap", DEPLOYED, [False] * 20)
    drive(tmp_path / "b" / "c.mcap", CANDIDATE, [True] * 20)
    (tmp_path / "b" / "other.mcap").write_bytes(b"nothing of ours")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "note: left out: " in capsys.readouterr().err
    assert main(["compare", str(deployed), str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_labels_that_say_nothing_are_told(tmp_path: Path) -> None:
    """A verdict that was changed by hand counts for nobody, and whoever gave it is to know."""
    both = in_turns(tmp_path / "a.mcap", [(DEPLOYED, 0, True), (CANDIDATE, 0, False)])
    append_label(both, read_log(both).header.session, 1, False, None)
    labels = labels_path(both)
    labels.write_text(labels.read_text().replace("false", "true"))
    found = review.compare([both])
    assert found.text().splitlines()[-2] == f"note        {labels}: line 1 is not readable"
    assert not found.doubts
    one, other = drive(tmp_path / "d.mcap", DEPLOYED, [True]), drive(tmp_path / "c.mcap", CANDIDATE, [True])
    append_label(other, read_log(other).header.session, 7, False, None)
    absent = "episode 7 is labelled and not in the log"
    assert f"note        {labels_path(other)}: {absent}\n" in review.compare([one], [other]).text()
