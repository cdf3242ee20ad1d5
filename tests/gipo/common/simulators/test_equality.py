"""What is shipped about tasks being the same: all fifty, the versions that are tested, a reason for every exception."""

from pathlib import Path

import pytest

from gipo.common.simulators import equality
from gipo.common.simulators.equality import exception, measured, why_not_native
from tests.needs import needs_sim

CONSTRAINTS = (Path(__file__).parents[4] / "constraints.txt").read_text().splitlines()


@needs_sim
def test_all_fifty_tasks_were_compared() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert list(measured()["tasks"]) == list(ALL_V3_ENVIRONMENTS)
    assert all({"differs", "code"} <= found.keys() for found in measured()["tasks"].values())


def test_what_was_compared_is_what_is_tested() -> None:
    assert measured()["versions"].keys() == set(equality.COMPARED)
    assert {f"{package}=={version}" for package, version in measured()["versions"].items()} <= set(CONSTRAINTS)


def test_a_task_that_was_not_compared_is_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equality, "measured", lambda: {"versions": {}, "tasks": {"a-v3": {"differs": "by much"}}})
    monkeypatch.setattr(equality, "available", lambda: True)
    assert exception("a-v3") == why_not_native("a-v3") == "by much"
    assert exception("b-v3") == "it has not been compared"
