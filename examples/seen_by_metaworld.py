"""What a camera shows of MetaWorld tasks, each as in training, and as on the robot: the picture of docs/vla.md.

python -m examples.seen_by_metaworld button-press-topdown-v3 coffee-button-v3 --out seen.png
"""

import argparse
from pathlib import Path

import numpy as np

from robots.drivers.sim_camera import NO_GAP, SeeingSimRobot, SeenGap
from robots.log.images import png

SPACE, TIMES = 8, 2  # pixels between two pictures, and by how much each is enlarged


def shown(task: str, gap: SeenGap) -> np.ndarray:
    """The first picture of an episode, [H, W, 3] uint8."""
    robot = SeeingSimRobot(task, gap=gap, realtime=False)
    robot.connect()
    try:
        robot.prepare(seed=0)
        (picture,) = robot.observe().images.values()
    finally:
        robot.close()
    return picture


def beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Enlarged pictures in a row on white, [H, W, 3] uint8."""
    large = [picture.repeat(TIMES, 0).repeat(TIMES, 1) for picture in pictures]
    white = np.full((len(large[0]), SPACE, 3), 255, np.uint8)
    return np.concatenate([part for picture in large for part in (white, picture)][1:], 1)


def main(options: argparse.Namespace) -> None:
    """Draw each task without the gap, and with it."""
    gap = SeenGap(light=options.light, colour=options.colour, shift_x=options.shift_x)
    drawn = [shown(task, each) for task in options.tasks for each in (NO_GAP, gap)]
    options.out.write_bytes(png(beside(drawn)))


def parser() -> argparse.ArgumentParser:
    """Options of the example."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("tasks", nargs="+", help="MetaWorld's names, as button-press-topdown-v3")
    found.add_argument("--out", type=Path, required=True, help="the PNG")
    found.add_argument("--light", type=float, default=0.8, help="factor on every pixel")
    found.add_argument("--colour", type=float, default=0.2, help="how far red has turned into blue")
    found.add_argument("--shift-x", type=float, default=0.12, help="metres by which the camera has slipped")
    return found


if __name__ == "__main__":
    main(parser().parse_args())
