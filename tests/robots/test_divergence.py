"""How far a policy that looked on was off, by hand numbers."""

import math
from pathlib import Path

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.divergence import Divergence, shadows
from robots.log import LogWriter, Session, Shadow, read_log
from robots.review.info import info
from tests.robots.builders import make_spec, step_row

OTHER = "ab" * 32


def test_the_estimator_by_hand() -> None:
    found = Divergence.of([0.0, 1.0, -1.0], [0.1, 0.2, 0.6])
    assert found.kl == pytest.approx((0 + (math.e - 2) + 1 / math.e) / 3)
    assert (found.steps, found.action_distance) == (3, pytest.approx(0.3))
    assert Divergence.of([900.0], [0.0]).kl == pytest.approx(math.exp(50))  # cut, or it would be infinite
    assert str(Divergence.of([], [], missed=2)) == "0 steps and 2 not scored"


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_shadow_is_compared_where_the_policy_acted(tmp_path: Path, deterministic: bool) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    writer.event("episode_start", episode=0, data={"policy_id": "0" * 64, "deterministic": deterministic})
    rows = [step_row(index, 5, 3) for index in range(8)]  # of which a person chose the first and the last
    for row in rows:
        writer.step(row)
        log_prob, action = row.log_prob - np.float32(1 / 3), row.action + np.float32(0.5)
        if row.step != 5:  # which it did not come to
            writer.shadow(Shadow(0, row.step, OTHER, 9, log_prob, action))
    writer.close()
    log = read_log(writer.path)
    found = shadows(log.episodes)[OTHER]
    assert (found.steps, found.missed) == (5, 1)
    assert found.action_distance == pytest.approx(0.5, abs=1e-6)
    assert math.isnan(found.kl) if deterministic else found.kl == pytest.approx(1 / math.e, abs=1e-6)  # x is −1
    assert f"{OTHER[:12]}…: {found}" in info(writer.path, log)


def test_what_it_missed_is_of_all_episodes(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    for index in (1, 2, 3, 51, 52):  # of two episodes
        row = step_row(index, 5, 3)
        writer.step(row)
        if index != 2:
            writer.shadow(Shadow(row.episode, row.step, OTHER, 9, row.log_prob, row.action))
    writer.close()
    found = shadows(read_log(writer.path).episodes)[OTHER]
    assert (found.steps, found.missed) == (4, 1)


def test_what_a_person_did_as_the_policy_would_have_is_the_persons(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    writer.event("episode_start", episode=0, data={"policy_id": "0" * 64})
    row = step_row(14, 5, 3)
    assert row.source == "person"
    row.proposed_action = row.action
    writer.step(row)
    writer.shadow(Shadow(0, row.step, OTHER, 9, row.log_prob, row.action))
    writer.close()
    assert str(shadows(read_log(writer.path).episodes)[OTHER]) == "0 steps"


def test_while_the_policy_is_engaged_its_own_actions_are_compared(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    writer.event("episode_start", episode=0, data={"policy_id": "0" * 64})
    row = step_row(1, 5, 3)
    row.source, row.gate, row.valid = "hold", ("engage",), False
    assert row.proposed_action is None
    writer.step(row)
    writer.shadow(Shadow(0, row.step, OTHER, 9, row.log_prob, row.action))
    writer.close()
    found = shadows(read_log(writer.path).episodes)[OTHER]
    assert (found.steps, found.action_distance) == (1, 0)
    assert found.kl == pytest.approx(0, abs=1e-9)


def test_a_shadow_of_another_robot_is_told(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    writer.event("episode_start", episode=0, data={"policy_id": "0" * 64})
    row = step_row(1, 5, 3)
    writer.step(row)
    writer.shadow(Shadow(0, 1, OTHER, 9, *np.zeros((2, 4), np.float32)))
    writer.close()
    with pytest.raises(UserError, match="episode 0, step 1: a shadow of another form"):
        info(writer.path, read_log(writer.path))


def test_of_a_log_without_one_nothing_is_said(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    writer.close()
    assert shadows(read_log(writer.path).episodes) == {}
    assert "shadow" not in info(writer.path, read_log(writer.path))
