"""The stages of the loop as the commands a user would type, each run once: a finished stage is not run again."""

import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gipo.commands.studies.processes import run
from gipo.common.errors import UserError
from gipo.common.files import locked, write_text
from gipo.common.intervals import rate_with_interval, wilson_interval
from robots.drivers.sim import RealityGap
from robots.log import read_log
from robots.settings.annotations import arguments
from robots.settings.assignments import parse_settings


@dataclass(frozen=True)
class RobotScore:
    """How a policy did on the robot.

    Args:
        successes: of each episode, at any step.
        returns: of each episode.
    """

    successes: tuple[bool, ...]
    returns: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Share of successful episodes."""
        return sum(self.successes) / len(self.successes)

    def text(self) -> str:
        """Success with its interval, and the mean return, in words."""
        shown = rate_with_interval(sum(self.successes), len(self.successes))
        return f"success {shown}, mean return {self.summary()['return']:,.0f}"

    def summary(self) -> dict[str, float]:
        """Success with its 95 % Wilson interval, and the mean return."""
        rate, low, high = wilson_interval(sum(self.successes), len(self.successes))
        mean = sum(self.returns) / len(self.returns)
        return {"episodes": len(self.successes), "success": rate, "low": low, "high": high, "return": mean}


@dataclass(frozen=True)
class Stages:
    """The stages of loops with one robot.

    Args:
        gap: settings of the simulated robot that make it unlike the simulator of training.
        speed: of the simulated robot, as a multiple of the wall clock.
        bars: let commands show their progress on the terminal; all else they say is in a file of the stage's folder.
        ended: set when no further stage is to begin.
    """

    gap: Mapping[str, float]
    speed: float = 20.0
    bars: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def train(self, folder: Path, seed: int, frames: int, options: Sequence[str] = ()) -> Path:
        """A policy trained in simulation; the folder of its checkpoints, of which every saved version is kept."""
        return self.fit(
            folder, [f"--seed_everything={seed}", f"--data.total_frames={frames}", "--checkpoint.keep=true", *options]
        )

    def export(self, checkpoint: Path, out: Path) -> Path:
        """The artifact of a checkpoint."""
        self._once(out.parent, out.stem, "gipo-deploy", "export", str(checkpoint), "--out", str(out))
        return out

    def drive(self, policy: Path, folder: Path, episodes: int, seed: int) -> RobotScore:
        """Episodes of the robot, logged in `folder`; episode e has the goal of seed + e."""
        settings = [part for key, value in self.gap.items() for part in ("--set", f"{key}={value:g}")]
        words = (
            "run", "--robot", "sim", "--policy", str(policy), "--episodes", str(episodes), "--seed", str(seed),
            "--speed", f"{self.speed:g}", "--log", str(folder), *settings,
        )  # fmt: skip
        self._once(folder, "drive", "gipo-robot", *words, "--table", fresh=True, identity=words)
        return robot_score(folder, episodes)

    def audit(self, logs: Sequence[Path], policies: Path, folder: Path) -> None:
        """Recompute every logged log-prob from the artifacts; refuse logs that are not reproduced."""
        found = [str(path) for log in logs for path in sorted(log.glob("*.mcap"))]
        self._once(folder, "audit", "gipo-robot", "audit", *found, "--policies", str(policies))

    def post_train(
        self, folder: Path, logs: Sequence[Path], init: Path, policies: Path, seed: int, options: Sequence[str] = ()
    ) -> Path:
        """A policy post-trained on logs alone; its checkpoint."""
        checkpoints = self.fit(
            folder,
            [
                "--config=post_train.yaml", f"--seed_everything={seed}", f"--model.init_from={init}",
                f"--data.logs={json.dumps([str(log) for log in logs])}", f"--data.ingest.policies={policies}", *options,
            ],
        )  # fmt: skip
        return checkpoints / "last.ckpt"

    def fit(self, folder: Path, options: Sequence[str]) -> Path:
        """A run of `gipo fit` in `folder`, resumed where it was interrupted; the folder of its checkpoints."""
        last = folder / "checkpoints" / "last.ckpt"
        where = f"--trainer.default_root_dir={folder}"
        self._once(
            folder, "fit", "gipo", "fit", *options, where, fresh=True, identity=options,
            resume=(last, ("fit", "--config", str(folder / "config.yaml"), f"--ckpt_path={last}", where)),
        )  # fmt: skip
        return folder / "checkpoints"

    def is_fitted(self, folder: Path) -> bool:
        """Whether a `fit` in this folder has come to its end."""
        return _marker(folder, "fit", "done").exists()

    def _once(
        self, folder: Path, name: str, command: str, *args: str, fresh: bool = False,
        identity: Sequence[str] = (), resume: tuple[Path, Sequence[str]] | None = None,
    ) -> None:  # fmt: skip
        """Run a command unless this folder says that the same one has been run to its end.

        The command holds the folder's lock: where a study was killed and what it had started goes on, that is waited
        for instead of started again beside it.

        Args:
            folder: of the stage.
            name: of the stage in its folder.
            command: one of MODULES.
            args: of the command.
            fresh: begin with an empty folder, without what an interrupted run of this command left there.
            identity: what makes two runs the same; the command's words unless given.
            resume: where this file exists, nothing is cleared and these are the arguments.

        Raises:
            UserError: when the folder is of another command, or it fails, with the end of what it said.
        """
        words = json.dumps(list(identity or args))
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as lock:
            begun = _begun(folder, name, words)
            if begun == "done":
                return
            if resume is not None and resume[0].exists():
                args = (*resume[1],)
            elif fresh:
                if begun is None and any(folder.iterdir()):
                    raise UserError(f"{folder} holds files not of this study; name another --out, or delete it")
                _clear(folder, _marker(folder, name, "started"))
            if self.ended.is_set():
                raise UserError("the study has ended")
            write_text(words, _marker(folder, name, "started"))
            run(command, args, folder / f"{name}.txt", lock, self.bars)
            write_text(words, _marker(folder, name, "done"))


def _marker(folder: Path, name: str, state: str) -> Path:
    return folder / f"{name}.{state}.json"


def _begun(folder: Path, name: str, words: str) -> str | None:
    """How far a command has come in its folder: `done`, `started`, or None; refuse another command than `words`."""
    for state in ("done", "started"):
        marker = _marker(folder, name, state)
        if marker.exists():
            if marker.read_text() != words:
                raise UserError(f"{folder} was made with other options; name another --out, or delete it")
            return state
    return None


def _clear(folder: Path, keep: Path) -> None:
    """Empty a folder but for `keep`; the folder itself stays, for the lock is on it."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != keep:
            path.unlink()


def robot_score(folder: Path, episodes: int) -> RobotScore:
    """What the logs in a folder say of success.

    Raises:
        UserError: when they do not hold that many judged episodes, or one is damaged.
    """
    found = [episode for path in sorted(folder.glob("*.mcap")) for episode in read_log(path).episodes]
    judged = [episode for episode in found if episode.success is not None]
    if len(judged) != episodes:
        raise UserError(f"{folder} holds {len(judged)} judged episodes of {episodes}; the robot was stopped")
    return RobotScore(
        tuple(bool(episode.success) for episode in judged),
        tuple(float(episode["reward"].sum(dtype=float)) for episode in judged),
    )


def parse_gap(settings: Sequence[str]) -> dict[str, Any]:
    """Fields of the simulated robot's `RealityGap` from `key=value`, checked before anything is trained for them.

    Raises:
        UserError: when there is no such field, or its value is out of range.
    """
    try:
        gap = arguments(RealityGap, parse_settings(settings), "")
        RealityGap(**gap)
    except UserError as error:
        raise UserError(f"--gap {' '.join(settings)}: {error}") from error
    return gap
