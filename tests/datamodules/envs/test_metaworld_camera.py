"""MetaWorld's cameras as a task: what is in the scene is seen, and not told; seeds choose goals and pictures."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from datamodules.envs.metaworld_camera import MetaWorldCameraEnv, MetaWorldVLA
from datamodules.envs.tasks import simulation
from gipo.common.errors import UserError
from gipo.vla.observations import VLASpaces, decode_instructions
from tests.needs import needs_camera

TASK = MetaWorldVLA("camera:button-press-topdown-v3", chunk=4, size=32, max_steps=8)


def seen(env: object, seed: int, decisions: int = 2) -> TensorDict:
    """What two simulators show after as many decisions to move on, the start included: [2, 1 + decisions]."""
    env.set_seed(seed)  # type: ignore[attr-defined]
    state, found = env.reset(), []  # type: ignore[attr-defined]
    found.append(state["observation"])
    for _ in range(decisions):
        state = env.step(state.set("action", torch.ones(2, 4, 4)))["next"]  # type: ignore[attr-defined]
        found.append(state["observation"])
    return torch.stack(found, 1)


@needs_camera
def test_seeds_choose_goals_and_every_decision_is_made_on_a_new_picture() -> None:
    env = TASK.make(2, 0)
    assert TASK.spaces(env) == VLASpaces((3, 32, 32), 4, (-1.0,) * 4, (1.0,) * 4, 4)
    first, other, again = (seen(env, seed) for seed in (1, 2, 1))
    assert first["image"].dtype == torch.uint8
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["state"], again["state"])
    assert not torch.equal(first["image"][:, 0], other["image"][:, 0])  # the box is elsewhere …
    assert torch.equal(first["state"][:, 0], other["state"][:, 0])  # … of which the state says nothing
    assert not torch.equal(first["image"][0, 0], first["image"][1, 0])
    assert (first["image"][:, 1:] != first["image"][:, :-1]).flatten(2).any(-1).all()
    assert (first["state"][:, 2, 0] > first["state"][:, 0, 0] + 0.01).all()
    objects = [env.reset()["privileged"] for _ in map(env.set_seed, (1, 1, 2))]
    assert objects[0].shape == (2, 35)
    assert torch.equal(objects[0], objects[1])
    assert not torch.equal(objects[0], objects[2])
    assert decode_instructions(first["instruction"][:1, 0]) == ["button press topdown"]
    assert TASK.interface["observation_names"] == ["hand_x", "hand_y", "hand_z", "gripper_opening"]
    env.close()


@needs_camera
def test_several_cameras_stand_one_after_another_as_each_would_alone() -> None:
    both = simulation("camera:topview+gripperPOV:button-press-topdown-v3").make(1, 0)
    spaces = simulation("camera:topview+gripperPOV:button-press-topdown-v3").spaces(both)
    assert (spaces.image, spaces.cameras) == ((6, 84, 84), ("topview", "gripperPOV"))
    for number, camera in enumerate(("topview", "gripperPOV")):
        one = simulation(f"camera:{camera}:button-press-topdown-v3").make(1, 0)
        both.set_seed(3)
        one.set_seed(3)
        together, alone = (env.reset()["observation", "image"] for env in (both, one))
        assert torch.equal(together[:, 3 * number : 3 * number + 3], alone)
        one.close()
    both.close()


@needs_camera
def test_several_cameras_may_have_a_size_each() -> None:
    task = MetaWorldVLA("camera:topview+gripperPOV:button-press-topdown-v3", chunk=4, size=(32, 16), max_steps=8)
    env, alone = task.make(1, 0), TASK.make(1, 0)
    spaces = task.spaces(env)
    assert (spaces.image, spaces.cameras) == (((3, 32, 32), (3, 16, 16)), ("topview", "gripperPOV"))
    env.set_seed(3)
    alone.set_seed(3)
    top, gripper = spaces.apart(env.reset()["observation", "image"])
    assert torch.equal(top, alone.reset()["observation", "image"])
    assert gripper.shape == (1, 3, 16, 16)
    assert len(gripper.unique()) > 10
    env.close()
    alone.close()


@needs_camera
def test_episodes_of_the_evaluation_are_their_numbers_own_and_are_cut_after_the_last_decision() -> None:
    env = TASK.make_evaluation(2, 0)
    pictures = []
    for numbers in ((3, 7), (7, 3)):
        env.begin_with(numbers, 5)
        state = env.reset()
        pictures.append(state["observation", "image"])
    assert torch.equal(pictures[0], pictures[1].flip(0))
    for _ in range(2):
        state = env.step(state.set("action", torch.zeros(2, 4, 4)))["next"]
    assert state["truncated"].all()
    assert not state["terminated"].any()
    env.close()


@needs_camera
def test_physics_and_goals_are_those_of_the_task_without_a_camera() -> None:
    from datamodules.envs.metaworld import MetaWorldEnv

    drawn, plain = (
        MetaWorldCameraEnv("button-press-topdown-v3", 1, sizes=[16]),
        MetaWorldEnv("button-press-topdown-v3", 1),
    )
    for env in (drawn, plain):
        env.set_seed(4)
    state, other = drawn.reset(), plain.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 4)):
        both = (env.step(each.set("action", torch.tensor(action[None], dtype=torch.float32)))["next"]
                for env, each in ((drawn, state), (plain, other)))  # fmt: skip
        state, other = both
        np.testing.assert_array_equal(drawn.whole(0), other["observation"][0])
        assert torch.equal(state["reward"], other["reward"])
    drawn.close()
    plain.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: simulation("camera:raech-v3"),
            "'camera:raech-v3' is no MetaWorld task with a camera. Nearest: camera",
        ),
        (lambda: MetaWorldVLA("reach-v3"), "'reach-v3' is no MetaWorld task with a camera"),
        (lambda: MetaWorldVLA(max_steps=155), "whole decisions of 10 steps, and at most 500, got 155"),
        (lambda: MetaWorldVLA(max_steps=510), "at most 500, got 510"),
        (lambda: MetaWorldVLA(size=0), "data.task.size"),
        (lambda: MetaWorldVLA(size=(64, 32)), r"data.task.size must be a number, or one for each of topview, got \[64"),
        (lambda: MetaWorldVLA(size=(0,)), "data.task.size"),
        (lambda: MetaWorldVLA(size=()), "data.task.size"),
        (lambda: simulation("camera:corner+corner:reach-v3"), "'camera:corner\\+corner:reach-v3' names a camera twice"),
        (lambda: simulation("camera:corner+topview:raech-v3"), "Nearest: camera:corner\\+topview:reach-v3"),
        (lambda: simulation("camera:"), "'camera:' is no MetaWorld task with a camera"),
    ],
)
def test_what_makes_no_task_is_named(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]


@needs_camera
def test_a_camera_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="MetaWorld has no camera 'above'; there are topview, corner"):
        MetaWorldVLA("camera:above:reach-v3").make(1, 0)
    with pytest.raises(UserError, match="MetaWorld has no camera ''; there are topview, corner"):
        MetaWorldVLA("camera::reach-v3").make(1, 0)
