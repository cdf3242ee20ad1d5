"""`make so101`: LeRobot's own follower moves the simulated arm over the emulated bus, and a short film of it is made.

A scripted person reaches for two goals and pushes a puck to a third; nothing is trained.
"""

import argparse
import time
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image

from examples.so101.desk import DeskSO101, DeskSO101Config
from examples.so101.emulator import NAME, Emulator
from examples.so101.model import model
from examples.so101.person import Guide
from examples.so101.scene import DRIVEN, PUSH, RATE, REACH, Task
from examples.so101.world import World

EVERY = 3  # control periods between two frames
SIZE = (240, 320)  # pixels


def perform(arm: Emulator, task: Task, seed: int) -> list[np.ndarray]:
    """An episode by the scripted person, through LeRobot's driver; the states of the world that a film is made of."""
    config = DeskSO101Config(port=arm.port.path, id=NAME, calibration_dir=arm.folder / "calibration",
                             scene=str(arm.folder / "scene"), task=task.name)  # fmt: skip
    robot, guide, film = DeskSO101(config), Guide(task), []
    robot.connect(calibrate=False)
    try:
        robot.prepare(seed)
        began = time.monotonic()
        for tick in range(task.steps):
            found = robot.get_observation()
            observation = np.array([found[name] for name in task.readings])
            if tick % EVERY == 0:
                film.append(_state(arm.world))
            if task.done(observation):
                print(f"{task.name}: done after {time.monotonic() - began:.1f} s, "
                      f"{1000 * task.distance(observation):.0f} mm from the goal")  # fmt: skip
                return film
            speeds = guide.speeds(observation)
            robot.send_action({f"{joint}.vel": speed for joint, speed in zip(DRIVEN, speeds.tolist(), strict=True)})
            time.sleep(max(0.0, began + (tick + 1) / RATE - time.monotonic()))
        print(f"{task.name}: not done in {task.steps / RATE:.1f} s, {1000 * task.distance(observation):.0f} mm away")
        return film
    finally:
        robot.disconnect()


def render(states: list[np.ndarray]) -> list[Image.Image]:
    """Pictures of states of the world, with the arm's looks; MUJOCO_GL=egl renders without a screen."""
    looks = model(meshes=True)
    data, frames = mujoco.MjData(looks), []
    with mujoco.Renderer(looks, *SIZE) as renderer:
        for state in states:
            data.qpos[:], looks.site("goal").pos = state[:-3], state[-3:]
            mujoco.mj_forward(looks, data)
            renderer.update_scene(data, "desk")
            frames.append(Image.fromarray(renderer.render()))
    return frames


def _state(world: World) -> np.ndarray:
    with world.lock:
        return np.concatenate([world.data.qpos, world.goal])


def main() -> None:
    """Move the arm, and write the film."""
    parser = argparse.ArgumentParser(prog="python -m examples.so101.show", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the arm's port, and the film")
    folder = parser.parse_args().folder
    states = []
    with Emulator(folder) as arm:
        print(f"six STS3215 at {arm.port.path}; LeRobot's SO101Follower moves them")
        for task, seed in ((REACH, 1), (REACH, 2), (PUSH, 3)):
            states += perform(arm, task, seed)
    print(f"making a film of {len(states)} frames …", flush=True)
    frames = render(states)
    frames[0].save(folder / "so101.gif", save_all=True, append_images=frames[1:], duration=EVERY / RATE * 1000, loop=0)
    print(f"{folder / 'so101.gif'}")


if __name__ == "__main__":
    main()
