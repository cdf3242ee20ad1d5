"""The stages of the loop as the commands a user would type, each run once: a finished stage is not run again."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from gipo.commands.studies.pipeline.once import once
from gipo.commands.studies.pipeline.processes import Commands, in_order, side_by_side
from gipo.commands.studies.pipeline.robots import RobotScore, robot_score
from gipo.commands.studies.pipeline.subjects import SAWYER, Subject
from gipo.commands.studies.pipeline.versions import IN_FLOAT32, OneVersion
from robots.log import files_below

# Periods, 50 s: a simulated robot waits for a machine that is busy with much else, and nobody is harmed meanwhile.
PATIENT = ("--deadline", "4000", "--max-age", "4000")


# What the stages themselves say to `gipo fit`, in simulation and from logs.
TRAINED = ("seed_everything", "data.total_frames")
POST_TRAINED = ("seed_everything", "model.init_from", "data.logs")


@dataclass(frozen=True)
class Stages:
    """The stages of loops with one robot.

    Args:
        gap: settings of the simulated robot that make it unlike the simulator of training.
        subject: the task, and its robot.
        speed: of the simulated robot, as a multiple of the wall clock.
        beside: robots side by side, each with its share of a stage's episodes, in a process of its own.
        bars: let commands show their progress on the terminal; all else they say is in a file of the stage's folder.
        commands: that run.
        version: of `gipo fit`, which is one for all its runs.
    """

    gap: Mapping[str, float]
    subject: Subject = SAWYER
    speed: float = 20.0
    beside: int = 1
    bars: bool = False
    commands: Commands = field(default_factory=Commands)
    version: OneVersion = field(default_factory=OneVersion)

    def train(self, folder: Path, seed: int, frames: int, options: Sequence[str] = ()) -> Path:
        """A policy trained in simulation; the folder of its checkpoints, of which every saved version is kept."""
        return self.fit(
            folder,
            [
                *self.subject.train, f"--seed_everything={seed}", f"--data.total_frames={frames}",
                "--checkpoint.keep=true", *options,
            ],
        )  # fmt: skip

    def demonstrate(self, folder: Path, seed: int, episodes: int) -> Path:
        """Demonstrations of the task's script; the folder of their log."""

        def show(lock: int) -> None:
            self.commands.run("gipo-demos", [*words, f"--out={folder}"], folder / "demos.txt", lock, self.bars)

        words = [*self.subject.script, f"--episodes={episodes}", f"--seed={seed}"]
        self._once(folder, "demos", words, show, fresh=True)
        return folder

    def clone(self, folder: Path, seed: int, demonstrations: Path, options: Sequence[str] = ()) -> Path:
        """A policy cloned from demonstrations; the folder of its checkpoints."""
        words = (f"--seed_everything={seed}", f"--data.logs={demonstrations}")
        return self.fit(folder, [*self.subject.train, *words, *options])

    def export(self, checkpoint: Path, out: Path) -> Path:
        """The artifact of a checkpoint."""
        words = ("export", str(checkpoint), "--out", str(out), *self.subject.export)
        self._run_once(out.parent, out.stem, "gipo-deploy", *words, made=out)
        return out

    def drive(self, policy: Path, folder: Path, episodes: int, seed: int, options: Sequence[str] = ()) -> RobotScore:
        """Episodes of the robot, logged below `folder`; episode e has the goal of seed + e.

        `options` are further ones of `gipo-robot run`.

        An episode is the same in whichever process it runs, and logs are read in the order of their episodes: how many
        robots there are shows in the number of files alone.
        """
        settings = [part for key, value in self.gap.items() for part in ("--set", f"{key}={value:g}")]
        words = ("run", *self.subject.robot, "--policy", str(policy), "--seed", str(seed), *settings, *options)

        def share(first: int, after: int, lock: int) -> None:
            name = f"from-{first:06}"
            mine = ("--episodes", str(after - first), "--first", str(first), "--log", str(folder / name), "--table")
            pace = ("--speed", f"{self.speed:g}", *PATIENT)  # which no row of a log depends on
            # The first speaks for all: they have as much to do, and one line of the terminal.
            bars = self.bars and not first
            self.commands.run("gipo-robot", (*words, *pace, *mine), folder / f"{name}.txt", lock, bars)

        def drive(lock: int) -> None:
            count = min(self.beside, episodes)
            if count == 1:  # in no pool: its failure would end what else the study runs
                share(0, episodes, lock)
                return
            starts = [episodes * index // count for index in range(count + 1)]
            with side_by_side(self.commands, count) as pool:
                list(in_order([pool.submit(share, *ends, lock) for ends in pairwise(starts)]))

        self._once(folder, "drive", (*words, "--episodes", str(episodes)), drive, fresh=True)
        return robot_score(folder, episodes)

    def audit(self, logs: Sequence[Path], policies: Path, folder: Path) -> None:
        """Recompute every logged log-prob from the artifacts; refuse logs that are not reproduced."""
        found = [str(path) for log in logs for path in files_below(log)]
        self._run_once(folder, "audit", "gipo-robot", "audit", *found, "--policies", str(policies))

    def post_train(
        self, folder: Path, logs: Sequence[Path], init: Path, policies: Path, seed: int, options: Sequence[str] = ()
    ) -> Path:
        """A policy post-trained on logs alone; its checkpoint."""
        checkpoints = self.fit(
            folder,
            [
                "--config=post_train.yaml", f"--seed_everything={seed}", f"--model.init_from={init}",
                f"--data.logs={json.dumps([str(log) for log in logs])}", f"--data.ingest.policies={policies}",
                *self.subject.post, *options,
            ],
        )  # fmt: skip
        return checkpoints / "last.ckpt"

    def fit(self, folder: Path, options: Sequence[str]) -> Path:
        """A run of `gipo fit` in `folder`, resumed where it was interrupted; the folder of its checkpoints."""
        last = folder / "checkpoints" / "last.ckpt"

        def fit(lock: int) -> None:
            begun = ("--config", str(folder / "config.yaml"), f"--ckpt_path={last}")
            more = begun if last.exists() else (IN_FLOAT32, *options)
            args = ("fit", *more, f"--trainer.default_root_dir={folder}")
            self.commands.run("gipo", args, folder / "fit.txt", lock, self.bars)

        self._once(folder, "fit", options, fit, fresh=True, keep=last)
        self.version.add(folder, options)
        return folder / "checkpoints"

    def prepare_robots(self) -> None:
        """Have the processes of robots start while one core is idle; a single core never is."""
        if self.beside > 1:
            for index in range(self.beside):
                self.commands.prepare("gipo-robot", self.bars and not index)

    def prepare(self, command: str) -> None:
        """Have the process of another command start, as `prepare_robots` does."""
        if self.beside > 1:
            self.commands.prepare(command, self.bars)

    def in_background(self, beside: int = 1) -> "Stages":
        """These stages without progress on the terminal, where that of others is shown."""
        return replace(self, beside=beside, bars=False)

    def _run_once(self, folder: Path, name: str, command: str, *args: str, made: Path | None = None) -> None:
        def work(lock: int) -> None:
            self.commands.run(command, args, folder / f"{name}.txt", lock, self.bars)

        self._once(folder, name, args, work, made=made)

    def _once(
        self, folder: Path, name: str, words: Sequence[str], work: Callable[[int], None],
        fresh: bool = False, keep: Path | None = None, made: Path | None = None,
    ) -> None:  # fmt: skip
        once(folder, name, words, work, fresh, keep, self.commands.refuse_when_ended, made)
