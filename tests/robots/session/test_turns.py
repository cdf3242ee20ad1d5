"""Two policies in turns: who drives when, from which seed, what is logged of it, and when it is known who is better."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.runtime.layout import Vision
from gipo.common.errors import UserError
from robots.base import Observation
from robots.cli import main
from robots.log import read_log
from robots.review.compare import compare
from robots.session.options import Options, Result
from robots.session.runner import Runner
from robots.session.turns import Turns
from robots.timing import TimingSummary
from tests.robots.builders import make_spec
from tests.robots.fakes import FakeRobot
from tests.robots.people.people import FakeOperator
from tests.robots.session_process import Wave

DEPLOYED, CANDIDATE = "d" * 64, "c" * 64
TIMING = TimingSummary(5, 80.0, 0, 0, 0, 1.0, 0.1, 1.0, 2.0, 0.2, {}, {})


class Still(Wave):
    """Always asks for the same, so that a log tells who acted."""

    def __init__(self, identity: str, level: float):
        super().__init__(make_spec())
        self.policy_id, self.level, self.refused = identity, level, False

    def act(self, observation: np.ndarray, rng: np.random.Generator, deterministic: bool = False) -> Any:
        found = super().act(observation, rng, deterministic)
        found.action = found.latent = np.full(3, self.level, np.float32)
        return found

    @property
    def latents(self) -> None:
        if self.refused:
            raise UserError("it makes its actions in a way of its own")


def policy(identity: str) -> Any:
    return Still(identity, 0.25 if identity == CANDIDATE else 0.75)


class Judge(FakeRobot):
    """Says, of every episode in turn, how it went."""

    def __init__(self, outcomes: list[bool | None]):
        super().__init__()
        self.outcomes, self.seeds = outcomes, []  # type: list[bool | None], list[int]

    def prepare(self, seed: int) -> None:
        self.seeds.append(seed)
        super().prepare(seed)

    def reading(self, **changes: Any) -> Observation:
        return super().reading(**{"success": self.outcomes[len(self.seeds) - 1], **changes})


def session(robot: FakeRobot, folder: Path, episodes: int, first: int = 0, until_told: bool = False) -> Any:
    options = Options(steps=2, engage_seconds=0.0, deadline=80.0, max_age=80.0)
    runner = Runner(robot, policy(DEPLOYED), options, folder, candidate=policy(CANDIDATE))
    return runner.run(episodes, 40, first, until_told)


def result(episode: int, seed: int, who: str, success: bool | None, discarded: bool = False) -> Result:
    return Result(episode, 5, 1.0, success, "steps", False, TIMING, discarded, who, seed)


def test_each_start_is_driven_twice_and_who_is_first_alternates() -> None:
    turns = Turns(policy("d"), policy("c"))
    starts = [(start.episode, start.seed, start.policy.policy_id) for start in turns.starts(range(1, 4), 40)]
    assert starts == [(2, 41, "c"), (3, 41, "d"), (4, 42, "d"), (5, 42, "c"), (6, 43, "c"), (7, 43, "d")]


def test_alone_a_policy_drives_each_start_once() -> None:
    turns = Turns(policy("d"))
    assert [start[:2] for start in turns.starts(range(2, 4), 40)] == [(2, 42), (3, 43)]
    assert (turns.ids, turns.roles("d")) == ([], [])


def test_a_policy_is_no_candidate_against_itself() -> None:
    with pytest.raises(UserError, match="the candidate is the policy itself"):
        Turns(policy(DEPLOYED), policy(DEPLOYED))


def test_only_pairs_of_known_outcomes_count() -> None:
    turns = Turns(policy("d"), policy("c"))
    driven = [
        result(0, 7, "d", False), result(1, 7, "c", True),  # +1
        result(2, 8, "c", True), result(3, 8, "d", None),  # nobody knows
        result(4, 9, "d", True), result(5, 9, "c", False),  # −1
        result(6, 10, "c", True, discarded=True), result(7, 10, "d", False),
        result(8, 11, "d", True), result(9, 11, "c", True),  # 0
        replace(result(13, 13, "c", True), steps=0), result(14, 13, "d", False),  # in its goal before it began
        result(10, 12, "c", True),  # the session was ended
    ]  # fmt: skip
    np.testing.assert_array_equal(turns.paired(driven).difference, [1.0, -1.0, 0.0])


def test_a_session_logs_whose_each_episode_is_and_compare_reads_it(tmp_path: Path) -> None:
    robot = Judge([False, True, True, False, False, True])
    report = session(robot, tmp_path, 3)
    assert (robot.seeds, report.life.exit_code) == ([40, 40, 41, 41, 42, 42], 0)
    log = read_log(report.path)
    assert log.header.turns == (DEPLOYED, CANDIDATE)
    assert set(log.header.manifests) == {DEPLOYED, CANDIDATE}
    begun = [(each.number, each.start["seed"], each.policy_id) for each in log.begun]
    d, c = DEPLOYED, CANDIDATE
    assert begun == [(0, 40, d), (1, 40, c), (2, 41, c), (3, 41, d), (4, 42, d), (5, 42, c)]
    asked = [each["action"][0].tolist() for each in log.begun]
    assert asked == [[0.25] * 3 if each.policy_id == CANDIDATE else [0.75] * 3 for each in log.begun]
    assert log.begun[1].start["noise"] == "numpy.random.default_rng([40, 1])"
    found = compare([report.path])
    assert ([seed for _, seed in found.starts], found.paired.difference.tolist()) == ([40, 41, 42], [1.0, 1.0, 1.0])
    lines = report.text().splitlines()
    assert lines[:4] == [
        "deployed    dddddddddddd…  success 0.00 [0.00, 0.56] of 3 episodes, mean return 2.0",
        "candidate   cccccccccccc…  success 1.00 [0.44, 1.00] of 3 episodes, mean return 2.0",
        "pairs       3: only the candidate succeeded in 3, only the deployed in 0",
        found.text().splitlines()[3],
    ]
    assert (
        lines[4] == found.paired.conclusion == "not yet known: drive more pairs, and look again, as often as you like"
    )
    head, *rows = [line.split() for line in report.table().splitlines()]
    assert head[:3] == ["episode", "policy", "steps"]
    assert [row[:2] for row in rows[:2]] == [["0", "deployed"], ["1", "candidate"]]


def test_no_more_than_until_it_tells(tmp_path: Path) -> None:
    better = [False, True, True, False] * 6  # the candidate's episodes succeed, whoever is first
    full, short = (session(Judge(better), tmp_path / name, 12, until_told=told)
                   for name, told in (("all", False), ("told", True)))  # fmt: skip
    known = compare([full.path]).paired.conclusion
    assert len(full.results) == 24
    assert short.text().splitlines()[4] == known == "the candidate succeeds more often: known since the first 10 pairs"
    assert len(short.results) == 20
    unknown = session(Judge([None] * 6), tmp_path / "unknown", 3, until_told=True)
    assert len(unknown.results) == 6
    assert "pairs      none of which both outcomes are known" in unknown.text()


def test_another_session_goes_on_with_the_next_pairs(tmp_path: Path) -> None:
    paths = [session(Judge([False, True, True, False]), tmp_path, 2, first=first).path for first in (0, 2)]
    assert [seed for _, seed in compare(paths).starts] == [40, 41, 42, 43]


def test_what_a_candidate_must_fit(tmp_path: Path) -> None:
    options, robot = Options(steps=3), FakeRobot()
    other, sees, refused = policy(CANDIDATE), policy(CANDIDATE), policy(CANDIDATE)
    other.manifest.action_names = ("a", "b", "c")
    with pytest.raises(UserError, match=r"^candidate: the policy was made for another robot than 'fake': action_names"):
        Runner(robot, policy(DEPLOYED), options, tmp_path, candidate=other)
    sees.manifest.vision = Vision((3, 8, 8), 16, 4)
    with pytest.raises(UserError, match=r"^candidate: the policy acts on an instruction"):
        Runner(robot, policy(DEPLOYED), options, tmp_path, candidate=sees)
    refused.refused, person = True, FakeOperator()
    with pytest.raises(UserError, match=r"^candidate: it makes its actions in a way of its own"):
        Runner(robot, policy(DEPLOYED), options, tmp_path, candidate=refused, operator=person)
    with pytest.raises(UserError, match="leave --shadow or --candidate out"):
        Runner(robot, policy(DEPLOYED), options, tmp_path, candidate=policy(CANDIDATE), shadow=policy(CANDIDATE))
    assert list(tmp_path.iterdir()) == []


def test_until_told_is_of_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--policy", "policy.onnx", "--until-told"]) == 2
    assert "name the other one with --candidate" in capsys.readouterr().err
