"""The simulated arm with a camera: what it measures, when it shows a picture, and what its gap does to both."""

import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from deploy.runtime.acting import Decision
from deploy.runtime.layout import Vision
from gipo.common.errors import UserError
from gipo.common.simulators.metaworld_camera import Camera
from robots.base import Observation
from robots.decider import Decider
from robots.drivers.sim_camera import SeeingSimRobot, SeenGap, View, make_seeing_spec, robot
from robots.session.options import Options
from tests.needs import needs_camera

VIEW = View(sizes=(32,), every=3)
TASK = "button-press-topdown-v3"


def arm(view: View = VIEW, **gap: float) -> SeeingSimRobot:
    made = SeeingSimRobot(TASK, view, SeenGap(**gap), realtime=False)
    made.connect()
    return made


def rollout(made: SeeingSimRobot, seed: int = 3, steps: int = 6) -> list[Observation]:
    made.prepare(seed)
    found = [made.observe()]
    for _ in range(steps):
        made.act(np.ones(4))
        found.append(made.observe())
    return found


TWO = Vision(((3, 32, 32), (3, 16, 16)), 128, 3, ("topview", "gripperPOV"))


def manifest(**changes: Any) -> Any:
    spec = make_seeing_spec()
    named = {name: value for name, value in asdict(spec).items() if name.startswith(("observation_n", "observation_u"))}
    vision = Vision((3, 32, 32), 128, 3)
    values = {**asdict(spec), **named, "task": f"camera:{TASK}", "vision": vision, **changes}
    return types.SimpleNamespace(**values)


@needs_camera
def test_hand_and_gripper_are_measured_and_every_third_observation_has_a_picture() -> None:
    made = arm()
    found = rollout(made)
    assert [list(each.images) for each in found] == [["topview"], [], [], ["topview"], [], [], ["topview"]]
    assert all(each.values.shape == (4,) for each in found)
    assert found[-1].values[0] > found[0].values[0] + 0.01
    again, other = rollout(made), rollout(made, seed=4)
    for one, two in zip(found[::3], again[::3], strict=True):
        np.testing.assert_array_equal(one.images["topview"], two.images["topview"])
        np.testing.assert_array_equal(one.values, two.values)
    assert not np.array_equal(found[0].images["topview"], other[0].images["topview"])
    with ThreadPoolExecutor(1) as elsewhere:  # as the loop closes a robot
        elsewhere.submit(made.close).result()


@needs_camera
def test_the_first_picture_which_takes_longest_is_drawn_before_a_deadline_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, picture = [], Camera.picture
    monkeypatch.setattr(Camera, "picture", lambda self, *of: drawn.append(self) or picture(self, *of))
    made = arm(View(("topview", "gripperPOV"), (32, 16)))
    assert len(set(drawn)) == len(drawn) == 2
    made.close()


@needs_camera
def test_what_is_privileged_is_true_whatever_the_sensors_do() -> None:
    made = arm(observation_noise=0.05, observation_bias=0.05, drop=0.5)
    exact = arm()
    for found, true in zip(rollout(made, steps=20), rollout(exact, steps=20), strict=True):
        assert found.privileged is not None
        np.testing.assert_array_equal(found.privileged, true.privileged)


class Words:
    """A policy that sees, of chunks of three, as far as a decider asks it."""

    manifest = types.SimpleNamespace(vision=Vision((3, 32, 32), 128, 3), observation_size=4)

    def row(self, values: np.ndarray, image: np.ndarray, instruction: str) -> np.ndarray:
        return image

    def act(self, seen: np.ndarray, rng: np.random.Generator, deterministic: bool) -> Decision:
        return Decision(*[np.full((3, 4), float(seen.mean()))] * 4)


@needs_camera
@pytest.mark.parametrize("replan", [0, 2])
def test_a_policy_finds_an_image_whenever_it_decides(replan: int) -> None:
    made = robot(manifest(), speed=20)
    made.connect()
    policy: Any = Words()
    decider = Decider(policy, Options(instruction="push", camera="topview", replan=replan))
    places, rng = [], np.random.default_rng(0)
    for step, found in enumerate(rollout(made, steps=6)):
        if step == 5:
            decider.decide_anew()  # a person has handed back
        places.append(decider.next(found, found.values, rng)[1])
    assert places == ([0, 1, 0, 1, 0, 0, 1] if replan else [0, 1, 2, 0, 1, 0, 1])
    made.close()


@needs_camera
def test_without_a_gap_it_sees_what_training_saw() -> None:
    torch = pytest.importorskip("torch", reason="needs the training stack")
    from datamodules.envs.metaworld_camera import MetaWorldCameraEnv

    made, env = arm(), MetaWorldCameraEnv(TASK, 1, sizes=(32,), every=3)
    env.simulators[0].np_random = np.random.default_rng(3)
    state, found = env.reset(), rollout(made)
    for each in found:
        if each.images:
            np.testing.assert_array_equal(each.images["topview"], state["observation", "image"][0].permute(1, 2, 0))
        np.testing.assert_allclose(each.values, state["observation", "state"][0], rtol=1e-6)
        np.testing.assert_allclose(each.privileged, state["privileged"][0], rtol=1e-6)
        state = env.step(state.set("action", torch.ones(1, 4)))["next"]
    env.close()
    made.close()


@needs_camera
def test_a_gap_is_one_of_the_arm_and_of_its_camera() -> None:
    plain, other = arm(), arm(action_gain=0.5, light=0.5)
    before, after = rollout(plain), rollout(other)
    np.testing.assert_allclose(after[0].images["topview"], before[0].images["topview"] * 0.5, atol=0.5)
    moved, less = (each[-1].values[0] - each[0].values[0] for each in (before, after))
    assert less < 0.7 * moved
    plain.close()
    other.close()


def test_a_policy_names_its_robot() -> None:
    made = robot(manifest(), speed=20, light="0.7")
    assert (made.task, made.view, made.realtime) == (TASK, View(("topview",), (32,), 1), False)
    elsewhere = robot(manifest(task=f"camera:corner3:{TASK}"))
    assert (elsewhere.task, elsewhere.view.cameras) == (TASK, ("corner3",))
    both = robot(manifest(vision=TWO), task="reach-v3")
    assert (both.task, both.view.cameras) == ("reach-v3", TWO.cameras), "as the policy was trained"
    assert robot(manifest(vision=TWO), task="camera:topview+gripperPOV:reach-v3").view == both.view
    assert both.view.sizes == (32, 16)
    assert made.gap == SeenGap(light=0.7)
    assert robot(manifest(), every=0).view.every == 3, "once a chunk"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: robot(manifest(vision=None)), "the policy takes no image: --robot sim"),
        (lambda: robot(manifest(), nonsense="1"), "no option 'nonsense'; there are action_gain, action_offset, colour"),
        (lambda: robot(manifest(), colour="2"), "the gap's colour is 2.0; it must be a number from 0 to 1"),
        (lambda: robot(manifest(), every=-1), "every is -1"),
        (
            lambda: robot(manifest(vision=TWO), task="camera:corner3:reach-v3"),
            "task=camera:corner3:reach-v3 has the cameras corner3; the policy sees by topview, gripperPOV: task=reach",
        ),
        (
            lambda: robot(manifest(vision=TWO), task="camera:gripperPOV+topview:reach-v3"),
            "has the cameras gripperPOV, topview; the policy sees by topview, gripperPOV",
        ),
        (lambda: robot(manifest(), task="camera:topview+corner3:reach-v3"), "topview, corner3; the policy sees by one"),
    ],
)
def test_what_makes_no_robot_is_named(make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
