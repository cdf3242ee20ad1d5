"""The score of a policy on a robot is what its logs say, persons' words included."""

from pathlib import Path

import pytest

from gipo.commands.studies.pipeline.robots import robot_score
from gipo.common.errors import UserError
from robots.log import LogWriter, Session, append_label
from tests.robots.builders import make_spec, step_row

PLAIN = sum(step_row(index, 5, 3).reward for index in range(3))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two episodes of the same three steps; a person rewards the first as it runs, and labels the second."""
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    for episode in range(2):
        for index in range(3):
            row = step_row(index, 5, 3)
            row.episode = episode
            writer.step(row)
        if episode == 0:
            writer.event("said", "by a person", episode, 2, {"reward": 4.0, "success": True})
        writer.event("outcome", "", episode, 3, {"success": False})
    writer.close()
    append_label(writer.path, writer.session.identity, 1, success=None, reward=-1.5)
    return writer.path


def test_what_persons_gave_is_in_the_return_and_their_word_in_the_success(log: Path) -> None:
    score = robot_score(log.parent, 2)
    assert score.successes == (True, False)
    assert score.returns == pytest.approx((PLAIN + 4.0, PLAIN - 1.5))
    assert score.summary()["return"] == pytest.approx(sum(score.returns) / 2)
    with pytest.raises(UserError, match=r"holds 2 judged episodes of 3; the robot was stopped, or .* deleted: delete "):
        robot_score(log.parent, 3)


def test_an_episode_that_a_person_ended_before_its_first_step_is_one_of_them(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    writer.event("episode_start", "", 0)
    writer.event("said", "by a person", 0, 0, {"success": False})
    row = step_row(0, 5, 3)
    row.episode = 1
    writer.step(row)
    writer.event("outcome", "", 1, 1, {"success": True})
    writer.close()
    score = robot_score(tmp_path, 2)
    assert (score.successes, score.returns) == ((False, True), (0.0, row.reward))
