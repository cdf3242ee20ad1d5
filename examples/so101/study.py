"""Trains for the arm, drives it over the bus with a gap, learns from the logs with a person's help, drives it again.

`python -m examples.so101.study --task reach --out studies/so101-reach`, in LeRobot's environment (`make lerobot`). Each
seed goes through

  train       gipo fit on the simulated desk                    policy → deployed.onnx
  before      the arm with its gap, goals nobody learns from    success
  logs        other goals, a scripted person helps              logs, whose log-probs are audited
  post-train  gipo fit on these logs alone                      policy → learned.onnx
  after       the goals of `before`                             success

Writes so101.csv (a row for each seed) and so101.md. A finished stage is not run again.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples.so101.emulator import NAME
from examples.so101.scene import TASKS
from examples.so101.server import refuse_long
from examples.so101.world import Gap, parse_gap
from gipo.commands.studies.options import add_more, add_numbers, add_runs, refuse_settled, refuse_twice
from gipo.commands.studies.pipeline.forks import Forks
from gipo.commands.studies.pipeline.once import once
from gipo.commands.studies.pipeline.processes import Commands, side_by_side
from gipo.commands.studies.pipeline.robots import RobotScore, robot_score
from gipo.commands.studies.pipeline.stages import POST_TRAINED, Stages
from gipo.commands.studies.statistics import paired_interval
from gipo.common.boundary import run as at_the_boundary
from gipo.common.errors import UserError
from gipo.common.files import write_text
from gipo.common.intervals import with_interval
from gipo.common.parsing import path
from gipo.common.tables import markdown, write_table
from gipo.common.transition import PERSON
from robots.log import Episode, files_below, read_log

FOLDER = Path(__file__).parent
COMPARED, LOGGED = 900_000, 100_000  # seeds of goals
ATTEMPTS = 100  # sessions that may be stopped, by a machine that is busy with much else, before a stage gives up
# What stops them then: a tick that takes too long, a reading that is too old, a person or a servo that does not answer.
LATE = re.compile(
    r"takes [\d.]+ ms so far|ms old, more than|has not answered for|There is no status packet|Incorrect status packet"
)
MAINS = {"gipo": "gipo.cli", "gipo-deploy": "deploy.cli", "gipo-robot": "robots.cli"}
HEAVY = ("examples.so101.desk", "gipo.commands.fit.cli", "deploy.export.artifact", "torch.export", "onnxscript",
         "robots.session.runner")  # fmt: skip
PATIENT = ("--deadline", "8", "--max-age", "8")  # periods: nobody stands beside this arm


class ForkedCommands(Commands):
    """Commands in processes that have imported what all of them need: LeRobot and torch take a quarter of a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._forks = Forks([*MAINS.values(), *HEAVY], asked=True)  # an arm is stopped in good order

    def run(self, command: str, args: Sequence[str], output: Path, lock: int, bars: bool = False) -> None:
        """Run one of our commands to its end; what it says goes to `output`, a .txt.

        Raises:
            UserError: when it fails, with the end of what it said; or the study has ended.
        """
        self._forks.run(output.with_suffix(""), _call, MAINS[command], list(args))

    def end(self, patience: float = 0.0) -> None:
        """End the commands, which have not heard of Ctrl-C."""
        self._forks.end()


def _call(module: str, args: list[str]) -> int | None:
    code: int | None = importlib.import_module(module).main(args)
    return code


@dataclass(frozen=True)
class DeskStages(Stages):
    """The stages of a study whose robot is the emulated arm.

    Args:
        task: of `TASKS`, without its prefix.
        arm: folder of the emulator.
    """

    task: str = "reach"
    arm: Path = Path("arm")

    def drive(self, policy: Path, folder: Path, episodes: int, seed: int, options: Sequence[str] = ()) -> RobotScore:
        """Episodes of the arm through LeRobot's driver; episode e has the goal of seed + e."""
        steps = str(TASKS[f"so101-{self.task}"].steps)
        words = (*self._words(policy), "--steps", steps, "--seed", str(seed), *PATIENT, *options)

        def drive(lock: int) -> None:
            while (done := len(_judged(folder))) < episodes:
                session = folder / f"{len(list(folder.glob('*.txt')))}"
                mine = ("--first", str(done), "--episodes", str(episodes - done), "--log", str(session))
                try:
                    self.commands.run("gipo-robot", (*words, *mine, "--table"), session.with_suffix(".txt"), lock)
                    return
                except UserError as error:
                    if len(stops(folder)) >= ATTEMPTS or not was_late(session, error):
                        raise

        unlike = [f"{name}={value:g}" for name, value in self.gap.items()]  # no word of the robot says so
        once(folder, "drive", (*words, *unlike, str(episodes)), drive)  # what was driven before it was stopped is kept
        return robot_score(folder, episodes)

    def _words(self, policy: Path) -> tuple[str, ...]:
        settings = {
            "device": "examples.so101.desk:DeskSO101", "spec": FOLDER / f"{self.task}.json", "wait": "false",
            "port": self.arm / "port", "scene": self.arm / "scene", "task": f"so101-{self.task}", "id": NAME,
            "calibration_dir": self.arm / "calibration", "patience": 8,
        }  # fmt: skip
        given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        person = ("--operator", "examples.so101.person:DeskPerson")
        return ("run", "--robot", "lerobot", *given, "--policy", str(policy), *person)


def parser() -> argparse.ArgumentParser:
    """What is trained, how the arm differs, and how much is logged and compared."""
    parser = argparse.ArgumentParser(prog="python -m examples.so101.study", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--task", choices=("reach", "push"), default="reach", help="(%(default)s)")
    parser.add_argument("--out", type=path, required=True, help="folder")
    add_runs(parser, [0, 1, 2, 3, 4], "run")
    add_numbers(parser, "--logged", 40, 10**5, "episodes to learn from")
    add_numbers(parser, "--episodes", 40, 10**5, "episodes of the comparison")
    parser.add_argument("--gap", nargs="*", default=["gain=.25", "backlash=6", "latency=.133"], metavar="KEY=VALUE",
                        help="of the arm (%(default)s)")  # fmt: skip
    add_numbers(parser, "--patience", 10, 10**5, "steps after which the person helps where nothing comes nearer")
    parser.add_argument("--realtime", action="store_true", help="the emulator goes first, where that is allowed")
    add_more(parser, "--train", "`gipo fit`")
    add_more(parser, "--post", "post-training")
    return parser


def run(options: argparse.Namespace) -> None:
    """Run what is not finished, and write what came out."""
    refuse_twice(options, "seeds")
    refuse_settled(options, "train", ("seed_everything",))
    refuse_settled(options, "post", (*POST_TRAINED, "data.ingest.reward"))
    gap, commands = parse_gap(options.gap), ForkedCommands()  # what is wrong with it is told before anything is trained
    for seed in options.seeds:
        refuse_long(arm_of(options, seed) / "scene")
    with side_by_side(commands, options.processes) as pool:
        rows = list(pool.map(lambda seed: run_seed(options, gap, seed, commands), options.seeds))
    write_table(rows, options.out / "so101.csv")
    text = report(rows)
    write_text(text + "\n", options.out / "so101.md")
    print(text)


def arm_of(options: argparse.Namespace, seed: int) -> Path:
    """The folder of the emulated arm of a seed."""
    return Path(options.out / f"seed-{seed}" / "arm")


def run_seed(options: argparse.Namespace, gap: Gap, seed: int, commands: Commands) -> dict[str, Any]:
    """All stages of a seed; its row."""
    folder = options.out / f"seed-{seed}"
    stages = DeskStages(asdict(gap), commands=commands, task=options.task, arm=arm_of(options, seed))
    begin = [f"--config={FOLDER / options.task}.yaml", f"--seed_everything={seed}", "--data.collector.workers=0"]
    checkpoint = stages.fit(folder / "train", [*begin, *(f"--{each}" for each in options.train)]) / "last.ckpt"
    policies, logs = folder / "policies", folder / "logs"
    helps = ["--operator-set", "help=true", "--operator-set", f"patience={options.patience}"]
    deployed = stages.export(checkpoint, policies / "deployed.onnx")
    with emulated(arm_of(options, seed), gap, options.realtime):
        before = stages.drive(deployed, folder / "before", options.episodes, COMPARED)
        stages.drive(deployed, logs, options.logged, LOGGED, helps)
    stages.audit([logs, folder / "before"], policies, folder)
    reward = f"--data.ingest.reward=examples.so101.scene.{options.task}_reward"
    more = [reward, "--model.human_coef=1", *(f"--{each}" for each in options.post)]
    learned = stages.post_train(folder / "post", [logs], checkpoint, policies, seed, more)
    after_policy = stages.export(learned, folder / "learned.onnx")
    with emulated(arm_of(options, seed), gap, options.realtime):
        after = stages.drive(after_policy, folder / "after", options.episodes, COMPARED)
    late = sum(len(stops(driven)) for driven in (folder / "before", logs, folder / "after"))
    return {"seed": seed, "before": before.rate, "after": after.rate, **_of_logs(logs), "late": late}


@contextmanager
def emulated(folder: Path, gap: Gap, realtime: bool) -> Iterator[None]:
    """The arm with its gap at the ports of a folder, in a process of its own."""
    unlike = [part for name, value in asdict(gap).items() for part in (f"--{name}", f"{value:g}")]
    words = [sys.executable, "-m", "examples.so101", str(folder), *unlike, *(["--realtime"] if realtime else [])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as arm:
        try:
            if not arm.stdout or not arm.stdout.readline():
                raise UserError(f"the emulated arm does not start: {' '.join(words)}")
            yield
        finally:
            arm.terminate()


def stops(folder: Path) -> list[str]:
    """Why episodes of the logs below a folder were stopped."""
    said = [[event["reason"] for event in each.events if event["kind"] == "stop"] for each in _episodes(folder)]
    return [reasons[0] for reasons in said if reasons]  # what follows the first is of the stop itself


def was_late(session: Path, error: UserError) -> bool:
    """Whether a session failed by nothing but being late; it may then be continued with the episode that was cut.

    Args:
        session: folder of its log.
        error: of its command; it tells why where no episode was stopped.
    """
    return all(LATE.search(reason) for reason in stops(session) or [str(error)])


def _judged(folder: Path) -> list[Episode]:
    return [episode for episode in _episodes(folder) if episode.success is not None]


def _episodes(folder: Path) -> list[Episode]:
    return [episode for file in files_below(folder) for episode in read_log(file).begun]


def _of_logs(folder: Path) -> dict[str, float]:
    """The person's share of the steps of the logs, and that of successful episodes."""
    episodes = _judged(folder)
    source = np.concatenate([episode["source"] for episode in episodes])
    helped = float((source == PERSON).mean())
    return {"person_share": helped, "logged": float(np.mean([bool(each.success) for each in episodes]))}


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Every seed, and the paired difference with its interval, in Markdown."""
    before, after = (np.array([row[name] for row in rows]) for name in ("before", "after"))
    lines = [
        (f"seed {row['seed']}", *(f"{row[name]:.2f}" for name in ("before", "after")),
         f"{row['after'] - row['before']:+.2f}", f"{100 * row['person_share']:.0f} %", f"{row['logged']:.2f}",
         row["late"])
        for row in rows
    ]  # fmt: skip
    medians = [
        f"{np.median(found):{form}}" for found, form in ((before, ".2f"), (after, ".2f"), (after - before, "+.2f"))
    ]
    lines.append(("median", *medians, "", "", ""))
    names = (
        "",
        "before",
        "after",
        "difference",
        "of a person in the logs",
        "success in the logs",
        "stopped for lateness",
    )
    table = markdown(names, lines)
    difference = with_interval(*paired_interval(after - before), "+.2f")
    return f"{table}\n\nMean difference {difference}: paired, Student's 95 % interval over {len(rows)} seeds."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study that the arguments ask for; its exit code."""
    return at_the_boundary("so101 study", lambda given: run(parser().parse_args(given)), arguments)


if __name__ == "__main__":
    sys.exit(main())
