"""Who enters: our recipe with an objective each, and what other packages offer; and how each makes a run."""

import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from gipo.commands.studies.fifty.rivals import RIVALS
from gipo.commands.studies.pipeline.forks import ALONE
from gipo.commands.studies.recipe.candidates import TASKS as DEVELOPMENT
from gipo.common.errors import UserError, nearest

UNJUDGED = "trainer.limit_val_batches=0"  # by itself: the callback judges every entrant alike
JUDGED = "gipo.commands.studies.fifty.judged.Judged"

SETTLED = (  # by the study's own options; and what keeps its seconds those of training, in the one process of a run
    "data.task", "data.total_frames", "seed_everything", "model.objective", "data.collector.workers",
    "trainer.limit_val_batches",
)  # fmt: skip

# Name → options of `gipo fit` beside the default recipe. The winner of the race, whose runs are kept, has σ₀ = .3.
OURS: Mapping[str, Sequence[str]] = {
    "AgeAwareGIPO": ("model.objective.sigma_fresh=0.3",),
    "GIPO": ("model.objective=GIPO",),
    "PPO-Clip": ("model.objective=PPOClip", "model.objective.clip=0.2"),
    "SAPO": ("model.objective=SAPO",),
}
THEIRS: Mapping[str, str] = {"SB3 PPO": "ppo", "SB3 SAC": "sac", "SBX SAC": "sbx_sac"}
DEFAULT = ["AgeAwareGIPO", "PPO-Clip", "SAPO", "SB3 PPO"]
LOT = {"SB3 SAC", "SBX SAC"}  # take an hour or more a run: only on some tasks


@dataclass(frozen=True)
class Entry:
    """A run of an entrant on a task.

    Args:
        entrant: one of OURS or THEIRS.
        task: a `-v3` name.
        seed: of everything.
    """

    entrant: str
    task: str
    seed: int

    @property
    def folder(self) -> Path:
        """The folder of this run within that of the study."""
        return Path(self.entrant.replace(" ", "-")) / f"{self.task}-{self.seed}"

    def command(self, frames: int, every: int, more: Sequence[str]) -> str:
        """What makes this run again."""
        train = f" --train {shlex.join(more)}" if more and self.entrant in OURS else ""
        return (
            f"gipo-study fifty --entrants '{self.entrant}' --tasks {self.task} --seeds {self.seed} --frames {frames} "
            f"--every {every} --lot 50 --out again{train}"
        )

    def words(self, frames: int, every: int) -> list[str]:
        """What makes two runs of another's the same."""
        offered = RIVALS[THEIRS[self.entrant]].distribution
        return [self.entrant, self.task, str(self.seed), str(frames), str(every), f"{offered} {version(offered)}"]

    def options(self, frames: int, every: int, more: Sequence[str]) -> list[str]:
        """Options of `gipo fit` for a run of ours."""
        judged = (f"trainer.callbacks+={JUDGED}", f"trainer.callbacks.task={self.task}",
                  f"trainer.callbacks.every={every}")  # fmt: skip
        own = (f"data.task={self.task}", f"seed_everything={self.seed}", f"data.total_frames={frames}")
        return [f"--{option}" for option in (*ALONE, UNJUDGED, *own, *OURS[self.entrant], *more, *judged)]


def plan(entrants: Sequence[str], tasks: Sequence[str], seeds: Sequence[int], lot: int, lot_seed: int) -> list[Entry]:
    """The runs, entrants in turn within a task, and all of one seed before the next: it may be stopped any time.

    Args:
        entrants: that run.
        tasks: for all of them but those that only get some by lot.
        seeds: of the runs.
        lot: tasks of the latter.
        lot_seed: of the lot, which is drawn among `tasks`.
    """
    drawn = by_lot(tasks, lot, lot_seed)
    return [
        Entry(entrant, task, seed)
        for seed in seeds
        for task in tasks
        for entrant in entrants
        if entrant not in LOT or task in drawn
    ]


def by_lot(tasks: Sequence[str], count: int, seed: int) -> list[str]:
    """So many of the tasks, in the order in which they are drawn."""
    return [str(task) for task in np.random.default_rng(seed).permutation(sorted(tasks))[:count]]


def is_development(task: str) -> bool:
    """Whether the recipe was chosen on this task."""
    return task in DEVELOPMENT


def refuse_unknown(entrants: Sequence[str]) -> None:
    """Refuse who is unknown, or not installed.

    Raises:
        UserError: naming the nearest, or what to install.
    """
    for name in entrants:
        if name not in {*OURS, *THEIRS}:
            raise UserError(f"--entrants {name!r}: there is none; the nearest: {nearest(name, [*OURS, *THEIRS])}")
        if name in THEIRS and importlib.util.find_spec(RIVALS[THEIRS[name]].package) is None:
            raise UserError(
                f"--entrants {name!r} needs {RIVALS[THEIRS[name]].distribution}, which is not installed: "
                "pip install -c constraints.txt '.[peers]'; or leave it out"
            )
