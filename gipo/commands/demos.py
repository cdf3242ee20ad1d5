"""`gipo-demos`: demonstrations of a task as a Minari dataset, or a log with images, to be cloned and post-trained from.

A script acts in simulation until enough of its episodes have succeeded; what was really done, noise included, is what
is recorded. MetaWorld's tasks have scripted policies of their own, LIBERO's a script that picks one thing up and places
it; for anything else, name a class or function of yours (observation -> action).
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from gipo.common import boundary
from gipo.common.errors import UserError
from gipo.common.intervals import rate_with_interval
from gipo.common.parsing import SEEDS, Parser, number, path, whole, words

if TYPE_CHECKING:
    from datamodules.demos.attempts import Demonstration
    from datamodules.envs.simulation import Simulation

SCRIPTED = ("script", "noise", "seed", "after", "max_steps", "failures", "processes")  # options of a script's attempts
PATIENCE = 20  # attempts in a row without a success after which a script counts as unfit for its task

EXAMPLES = f"""examples:
  gipo-demos --task reach-v3 --out demonstrations
  gipo-demos --task assembly-v3 --episodes 50 --noise 0.3 --processes 2 --out demonstrations
  gipo-demos --task camera:button-press-topdown-v3 --out demonstrations     a log with what a camera saw
  gipo-demos --task libero_90/69 --out demonstrations
  gipo-demos --task libero_90/69 --file demo.hdf5 --out demonstrations      LIBERO's own recordings, observed anew
  gipo-demos --task Pendulum-v1 --script my_scripts.swing_up --out demonstrations

then clone them, and post-train the clone:
  gipo fit --config bc.yaml --data.logs=demonstrations --data.task=reach-v3 --trainer.default_root_dir=runs/clone
  gipo fit --config from_demonstrations.yaml --data.task=reach-v3 --model.init_from=runs/clone/checkpoints/last.ckpt

A person's demonstrations are the logs of gipo-robot; --data.logs takes both, side by side.

{boundary.DEBUG_HELP}
"""


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `gipo-demos`. Exit codes: 0 done, 2 bad input; the boundary lists the others."""
    return boundary.run("gipo-demos", _command, args)


def build_parser() -> argparse.ArgumentParser:
    """What can be asked for: task, script, how many, and how disturbed."""
    parser = Parser(
        "gipo-demos", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", type=words, required=True, help="as in data.task: reach-v3, libero_90/69, a Gymnasium id, a class")
    add("--out", type=path, required=True, help="folder for the dataset; those of several tasks may share it")
    add("--episodes", type=whole(1, 10**6), default=10, help="demonstrations to keep (%(default)s)")
    add("--noise", type=number(0, 100), default=0.2,
        help="standard deviation of the noise on the script's actions, in units of an action; for MetaWorld and LIBERO "
        "on the moves of the hand alone (%(default)s)")  # fmt: skip
    add("--seed", type=whole(0, SEEDS), default=0, help="of starts and noise (%(default)s)")
    add("--script", type=words, metavar="MODULE.NAME", help="a function, observation [O] -> action [D]; or a class "
        "whose instances are, made anew for every episode, given the environment if it takes an argument")  # fmt: skip
    add("--after", type=whole(0, 10**6), default=20,
        help="steps that an episode goes on after its first success (%(default)s)")  # fmt: skip
    add("--max-steps", type=whole(1, 10**6), help="steps after which an attempt is given up, if not by the task before")
    add("--failures", action="store_true", help="keep episodes that did not succeed, too")
    add("--simulator", choices=("auto", "python", "envpool"), default="auto", help="as in data.simulator (%(default)s)")
    add("--processes", type=whole(1, 1024), default=1,
        help="attempts side by side, which changes no demonstration (%(default)s)")  # fmt: skip
    add("--file", type=path, help="LIBERO's recorded demonstrations (HDF5) in place of the script")
    return parser


def _command(args: list[str]) -> None:
    options = (parser := build_parser()).parse_args(args)
    if options.file:
        idle = [name for name in SCRIPTED if getattr(options, name) != parser.get_default(name)]
        if idle:
            named = idle[0].replace("_", "-")
            raise UserError(f"--{named} is of attempts of a script, and --file has none; leave it out")
    from datamodules.demos.dataset import refuse_taken, write
    from datamodules.envs.choice import chosen

    task = chosen(options.task, options.simulator)
    assert task is not None
    refuse_taken(options.out, task)
    if len(task.parts) > 1:
        raise UserError(f"{task.name} has {len(task.parts)} tasks; name one, such as {task.name}/0")
    made, said = _recorded(task, options.file, options.episodes) if options.file else _scripted(task, options)
    folder = write(options.out, task, made, f"{task.name}: {said}")
    steps = sum(len(each.actions) for each in made)
    print(f"{folder}: {len(made)} demonstrations of {task.name}, {steps:,} steps; {said}")


def _scripted(task: "Simulation", options: argparse.Namespace) -> tuple[list["Demonstration"], str]:
    """Demonstrations of a script, and how they were made."""
    from tqdm.auto import tqdm

    from datamodules.demos.attempts import Attempts
    from datamodules.demos.gather import attempted

    if task.horizon is None and options.max_steps is None:
        raise UserError(f"{task.name} has no time limit, so that an attempt may never end; set --max-steps")
    attempts = Attempts(task, options.script, options.noise, options.seed, options.after, options.max_steps)
    kept: list[Demonstration] = []
    successes = tries = failures = 0
    bar = tqdm(total=options.episodes, desc=task.name, unit="episode")
    with bar, closing(attempted(attempts, options.processes)) as made:
        while len(kept) < options.episodes:
            each, tries = next(made), tries + 1
            successes, failures = successes + each.succeeded, 0 if each.succeeded else failures + 1
            if failures == PATIENCE and not options.failures:
                raise UserError(
                    f"the script failed {PATIENCE} times in a row at {task.name}; lower --noise, or name another --task"
                )
            if each.succeeded or options.failures:
                kept.append(each)
                bar.update()
            if each.success is not None:
                bar.set_postfix_str(f"{successes} of {tries} succeeded")
    how = f"{options.script or 'its script'}, noise {options.noise:g}, seed {options.seed}, {task.simulator} simulator"
    if kept[0].success is None:
        return kept, f"{how}; {tries} attempts, of which the task does not say whether they succeeded"
    return kept, f"{how}; {successes} of {tries} attempts succeeded: {rate_with_interval(successes, tries)}"


def _recorded(task: "Simulation", file: Path, episodes: int) -> tuple[list["Demonstration"], str]:
    """Demonstrations of a file of LIBERO's, and where they are from."""
    from tqdm.auto import tqdm

    from datamodules.envs.libero.hdf5 import recorded
    from datamodules.envs.libero.states import LiberoStateTask
    from datamodules.envs.libero.tasks import find_one

    if not isinstance(task, LiberoStateTask):
        raise UserError(f"--file is for LIBERO's tasks, and {task.name} is none; logs of robots need no conversion")
    found = islice(recorded(find_one(task.name), file), episodes)
    return list(tqdm(found, total=episodes, desc=task.name, unit="episode")), f"recorded in {file.name}"


if __name__ == "__main__":
    sys.exit(main())
