"""`python -m benchmarks.simulators.transfer [TASK ...]`: trained in one simulator, how does a policy score in both?

`gipo fit` trains in each, and its best checkpoint acts in --episodes episodes in either, of starts that training never
had: one JSON line a task and simulator. A policy that is trained in one scores in the other within the interval.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from datamodules.collect.evaluation import Evaluation, evaluate
from datamodules.envs.choice import Simulator, chosen
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main as gipo
from gipo.commands.studies.pipeline.once import once
from gipo.common.intervals import wilson_interval

TASKS = ("reach-v3", "door-close-v3", "coffee-button-v3", "plate-slide-v3", "faucet-close-v3", "handle-pull-side-v3")
SIMULATORS: tuple[Simulator, ...] = ("envpool", "python")
SEED = 2_000_003  # of starts that neither training nor its evaluation has


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulators.transfer", description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", default=TASKS, help=f"{', '.join(TASKS)} unless given")
    parser.add_argument("--frames", type=int, default=60_000, help="environment steps of a run (%(default)s)")
    parser.add_argument("--episodes", type=int, default=50, help="of each policy in each simulator (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"), help="folder of the runs (%(default)s)")
    return parser


def main(given: Sequence[str] | None = None) -> None:
    """Train and score; a run that has come to its end is not trained again, and one that was cut begins anew."""
    arguments = build_parser().parse_args(given)
    for task in arguments.tasks:
        for trained_in in SIMULATORS:
            run = arguments.out / f"{task}-{trained_in}-{arguments.frames}"
            found = scores(train(run, task, trained_in, arguments.frames), task, arguments.episodes)
            print(json.dumps({"task": task, "trained_in": trained_in, **found}), flush=True)


def train(run: Path, task: str, simulator: Simulator, frames: int) -> Path:
    """The best checkpoint of a run in this folder that has come to its end."""
    options = {"data.task": task, "data.simulator": simulator, "data.total_frames": frames}
    options["trainer.default_root_dir"] = run
    words = ["fit", *(f"--{name}={value}" for name, value in options.items())]
    once(run, "fit", words, lambda _: gipo(words), fresh=True)
    return run / "checkpoints" / "best.ckpt"


def scores(checkpoint: Path, task: str, episodes: int) -> dict[str, float | list[float] | bool]:
    """Success in each simulator with its 95 % interval, and whether one of them is within the other's."""
    policy, found = policy_from(load_checkpoint(checkpoint)), {}
    for simulator in SIMULATORS:
        simulation = chosen(task, simulator)
        assert simulation is not None
        env = simulation.make_evaluation(min(10, episodes), SEED)
        successes = int(evaluate(env, policy, episodes, Evaluation(SEED))["success"].sum())
        env.close()
        found[simulator] = wilson_interval(successes, episodes)
    rates = {f"success_in_{name}": [round(value, 3) for value in interval] for name, interval in found.items()}
    (one, one_low, one_high), (other, other_low, other_high) = found.values()
    return {**rates, "within": one_low <= other <= one_high or other_low <= one <= other_high}


if __name__ == "__main__":
    main()
