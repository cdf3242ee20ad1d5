"""MetaWorld's own simulators, with models that lack what is only seen."""

import numpy as np
import pytest

from datamodules.envs.metaworld import MetaWorldEnv, environments
from gipo.common.simulators.lean_models import OBSERVED
from gipo.common.simulators.metaworld import show_goal

SOME = ("reach-v3", "coffee-button-v3", "door-open-v3")  # two of which observe what collides with nothing


@pytest.mark.parametrize(
    "task", [pytest.param(name, marks=[] if name in SOME else pytest.mark.campaign) for name in sorted(environments())]
)
def test_a_lean_model_moves_bit_for_bit_like_the_whole(task: str) -> None:
    env = MetaWorldEnv(task, 1)
    lean, whole = env.simulators[0], environments()[task]()
    show_goal(whole)
    starts = []
    for simulator in (lean, whole):
        simulator.np_random = np.random.default_rng(3)
        starts.append(simulator.reset()[0])
    assert np.array_equal(*starts)
    for action in np.random.default_rng(0).uniform(-1, 1, (60, 4)).astype(np.float32):
        (here, reward, *_), (there, other, *_) = lean.step(action), whole.step(action)
        assert np.array_equal(here, there)
        assert reward == other
    assert lean.model.nbuffer < whole.model.nbuffer / 5


def test_what_is_kept_though_it_is_only_seen_is_in_a_model() -> None:
    files = {path.rpartition("/")[2] for path in (object.__new__(kind).model_name for kind in environments().values())}
    assert set(OBSERVED) <= files
