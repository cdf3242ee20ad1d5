"""`python -m datamodules.envs.libero.demos`: demonstrations of a LIBERO task as a Minari dataset, to be cloned.

They come from a script, or from files in LIBERO's own format (HDF5), whose states are played back to be observed as
our environments observe them.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from datamodules.envs.libero.hdf5 import Demonstration, recorded
from datamodules.envs.libero.script import PickAndPlace
from datamodules.envs.libero.simulator import ACTION_SIZE, LiberoSimulator
from datamodules.envs.libero.tasks import LiberoTask, find_one
from gipo.common import boundary
from gipo.common.errors import UserError
from gipo.common.parsing import SEEDS, Parser, number, path, whole, words
from robots.review.export_minari import datasets_path

PATIENCE = 10  # attempts in a row without a success after which a script counts as unfit for its task


def scripted(task: LiberoTask, noise: float, seed: int) -> Iterator[Demonstration]:
    """Successes of the script, from initial states in order, for ever.

    Args:
        task: what to do.
        noise: standard deviation of what is added to each of the three translations, in units of an action; what was
            really done is what is recorded, so that demonstrations also show the way back.
        seed: of the noise and of what initial states leave open.

    Raises:
        UserError: when the task is none the script knows, or it fails time after time.
    """
    simulator, generator, failures = LiberoSimulator(task), np.random.default_rng(seed), 0
    spread = noise * np.array([1, 1, 1, 0, 0, 0, 0])
    for attempt in count():
        observations = [simulator.reset(attempt % len(simulator.states), generator)]
        script, success = PickAndPlace(simulator), False
        actions: list[np.ndarray] = []
        while not success and len(actions) < task.horizon:
            action = script() + spread * generator.standard_normal(ACTION_SIZE)
            actions.append(action.clip(-1, 1).astype(np.float32))
            observation, success = simulator.step(actions[-1])
            observations.append(observation)
        failures = 0 if success else failures + 1
        if success:
            yield Demonstration(np.stack(observations), np.stack(actions))
        elif failures == PATIENCE:
            raise UserError(f"the script failed {PATIENCE} times in a row at {task.name}; choose another task")


def write(out: Path, task: LiberoTask, demonstrations: Iterable[Demonstration]) -> Path:
    """Write the dataset `gipo/<suite>-<index>-v0` under `out`, and say where it is."""
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    name = f"gipo/{task.suite}-{task.index}-v0"
    if (out / name).exists():
        raise UserError(f"{out / name} exists; name another --out")
    buffers = []
    for index, each in enumerate(demonstrations):
        last = np.arange(len(each.actions)) == len(each.actions) - 1
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=each.observations,
                actions=each.actions,
                rewards=last.astype(np.float32),
                terminations=last,
                truncations=np.zeros_like(last),
                infos={"success": np.append(False, last)[:, None]},  # row 0 is the reset's
            )
        )
    if not buffers:
        raise UserError("there are no demonstrations to write")
    out.mkdir(parents=True, exist_ok=True)
    with datasets_path(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of environments the data were not collected in
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=Box(-np.inf, np.inf, buffers[0].observations.shape[1:], np.float32),
            action_space=Box(-1, 1, (ACTION_SIZE,), np.float32),
            algorithm_name="demonstrations",
            author="gipo",
            author_email="",
            code_permalink="",
            description=task.instruction,
        )
    return out / name


def main(args: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 done, 2 bad input; the boundary lists the others."""
    return boundary.run("demos", _command, args)


def _command(args: list[str]) -> None:
    parser = Parser("python -m datamodules.envs.libero.demos", description=__doc__, epilog=boundary.DEBUG_HELP)
    parser.add_argument("--task", type=words, required=True, help="one LIBERO task, such as libero_spatial/0")
    parser.add_argument("--out", type=path, required=True, help="folder for the dataset")
    parser.add_argument("--episodes", type=whole(1, 10**6), default=50, help="demonstrations (%(default)s)")
    parser.add_argument(
        "--noise", type=number(0, 100), default=0.2, help="noise on the script's translations (%(default)s)"
    )
    parser.add_argument("--seed", type=whole(0, SEEDS), default=0, help="of the noise (%(default)s)")
    parser.add_argument("--file", type=path, help="LIBERO's demonstrations (HDF5) in place of the script")
    options = parser.parse_args(args)
    task = find_one(options.task)
    found = recorded(task, options.file) if options.file else scripted(task, options.noise, options.seed)
    bar = tqdm(zip(range(options.episodes), found, strict=False), total=options.episodes, unit="episode")
    kept = [each for _, each in bar]
    written = write(options.out, task, kept)
    steps = sum(len(each.actions) for each in kept)
    print(f"{written}: {len(kept)} demonstrations of {task.name}, {steps} steps")


if __name__ == "__main__":
    sys.exit(main())
