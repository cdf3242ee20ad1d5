"""Pools of native simulators, as the robot's driver has them: without torch."""

import sys

import numpy as np
import pytest

from gipo.common.errors import UserError
from gipo.common.simulators import native
from gipo.common.simulators.native import Pool, metaworld_id
from tests.needs import needs_envpool


@pytest.mark.parametrize(
    ("task", "known_as"),
    [("reach-v3", "MetaWorld/Reach-v3"), ("peg-insert-side-v3", "MetaWorld/PegInsertSide-v3")],
)
def test_ids_of_metaworlds_tasks(task: str, known_as: str) -> None:
    assert metaworld_id(task) == known_as


@needs_envpool
def test_a_simulator_draws_by_its_own_seed() -> None:
    pool = Pool(metaworld_id("reach-v3"), [2**32 - 1, 5])
    first, second = pool.reset(), pool.reset(np.array([1]))
    pool.close()
    alone = Pool(metaworld_id("reach-v3"), [5])
    assert np.array_equal(alone.reset(), first[1:])
    assert np.array_equal(alone.reset(), second)
    alone.close()


@needs_envpool
def test_actions_are_taken_in_the_precision_of_the_task() -> None:
    pool = Pool("HalfCheetah-v5", [0, 1])  # float64, MetaWorld's are float32
    pool.reset()
    answer = pool.step(np.ones((2, 6), np.float32))
    pool.close()
    assert answer.observation.shape == (2, 17)
    assert answer.success is None


def test_without_envpool_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UserError, match=r"need envpool, which there is for Python 3.11 and newer: pip install"):
        native.envpool()
