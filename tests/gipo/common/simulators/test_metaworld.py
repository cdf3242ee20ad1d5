"""MetaWorld's Sawyer in less time: the same numbers."""

import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from gipo.common.simulators.metaworld import hasten, show_goal

SOME = ("push", "reach")


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(name, marks=[] if name.removesuffix("-v3") in SOME else pytest.mark.campaign)
        for name in sorted(ALL_V3_ENVIRONMENTS)
    ],
)
def test_a_hastened_task_says_what_metaworlds_own_says_where_a_script_grasps_things(task: str) -> None:
    own, fast = ALL_V3_ENVIRONMENTS[task](), ALL_V3_ENVIRONMENTS[task]()
    hasten(fast)
    for simulator in (own, fast):
        show_goal(simulator)
        simulator.np_random = np.random.default_rng(3)
    (seen, _), (other, _) = own.reset(), fast.reset()
    assert np.array_equal(seen, other)
    script = ENV_POLICY_MAP[task]()
    for noise in np.random.default_rng(0).normal(0, 0.1, (200, 4)):
        action = np.clip(script.get_action(seen) + noise, -1, 1).astype(np.float32)
        (seen, *rewarded), (other, *as_rewarded) = own.step(action), fast.step(action)
        assert np.array_equal(seen, other)
        assert rewarded == as_rewarded


def test_fingers_touch_a_thing_when_metaworlds_own_method_says_so() -> None:
    simulator = ALL_V3_ENVIRONMENTS["push-v3"]()
    show_goal(simulator)
    simulator.np_random = np.random.default_rng(3)
    hasten(simulator)
    seen, script = simulator.reset()[0], ENV_POLICY_MAP["push-v3"]()
    geoms, touched = range(simulator.model.ngeom), set()
    for _ in range(60):
        seen, *_ = simulator.step(np.clip(script.get_action(seen), -1, 1).astype(np.float32))
        own = [geom for geom in geoms if type(simulator).touching_object(simulator, geom)]
        assert [geom for geom in geoms if simulator.touching_object(geom)] == own
        touched.add(simulator._get_id_main_object() in own)
    assert touched == {False, True}
