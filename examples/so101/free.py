"""How often policies do a task on a copy of the arm whose time runs freely: no bus, no busy machine, the same gap.

`python -m examples.so101.free a.onnx b.onnx --gap gain=.25 backlash=11 latency=.033` prints the success of each,
with its 95 % interval.
"""

import sys
from pathlib import Path

import numpy as np

from deploy.policy import OnnxPolicy
from examples.so101.scene import DRIVEN, RATE, RESTING, TASKS, Task, layout, lead
from examples.so101.world import Gap, World, parse_gap
from gipo.common import boundary
from gipo.common.intervals import rate_with_interval
from gipo.common.parsing import SEEDS, Parser, whole
from robots.spec import RobotSpec

SETTLE = 45  # periods in which the arm goes to where an episode begins


def successes(policy: OnnxPolicy, task: Task, gap: Gap, episodes: int, seed: int) -> int:
    """In how many episodes, of goals from `seed` on, the task is done at some step."""
    now, random = [0.0], np.random.default_rng(seed)
    world, done = World(gap, lambda: now[0]), 0

    def go(target: np.ndarray) -> None:
        for joint, degrees in enumerate([*target, *RESTING.values()]):
            world.drive(joint, float(np.radians(degrees)), 1.0)
        now[0] += 1 / RATE
        world.catch_up()

    for number in range(seed, seed + episodes):
        begin = layout(task, np.random.default_rng(number))
        for _ in range(SETTLE):
            go(begin.joints)
        world.place(begin)
        target, reached = begin.joints, False
        for _ in range(task.steps):
            observation = _observe(world, task)
            reached |= task.done(observation)
            speed = policy.act(observation.astype(np.float32), random).action
            target = lead(target, observation[: len(DRIVEN)], speed)
            go(target)
        done += reached
    return done


def _observe(world: World, task: Task) -> np.ndarray:
    seen = world.seen()
    joints = [np.degrees(world.angle(joint)) for joint in range(len(DRIVEN))]
    return np.array([*joints, *seen["tip"], *(seen["puck"] if task.pushes else ()), *seen["goal"]])


def run(given: list[str]) -> None:
    """Print the success of every policy."""
    parser = Parser(prog="python -m examples.so101.free", description=__doc__)
    parser.add_argument("policies", nargs="+", type=Path, help="artifacts")
    parser.add_argument("--task", choices=("reach", "push"), default="reach", help="(%(default)s)")
    parser.add_argument("--gap", nargs="*", default=[], metavar="KEY=VALUE", help="of the arm (none)")
    parser.add_argument("--episodes", type=whole(1, 10**6), default=100, help="(%(default)s)")
    parser.add_argument("--seed", type=whole(0, SEEDS), default=500_000, help="of the first goal (%(default)s)")
    options = parser.parse_args(given)
    gap = parse_gap(options.gap)
    spec = RobotSpec.from_json(Path(__file__).with_name(f"{options.task}.json").read_text())
    for path in options.policies:
        policy = OnnxPolicy.load(path)
        spec.check(policy.manifest)
        done = successes(policy, TASKS[f"so101-{options.task}"], gap, options.episodes, options.seed)
        print(f"{rate_with_interval(done, options.episodes)} {path}", flush=True)


if __name__ == "__main__":
    sys.exit(boundary.run("so101 free", run, None))
