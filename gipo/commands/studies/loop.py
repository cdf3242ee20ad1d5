"""Train in simulation, run on a robot that is unlike it, post-train on what it logged, run again on the same goals.

For every seed: `gipo fit` trains a policy in simulation; `gipo-deploy export` makes it an artifact; `gipo-robot run`
drives the simulated robot, whose reality gap it has never seen, to collect logs; `gipo fit --config post_train.yaml`
learns from these logs alone, while `gipo-robot audit` recomputes every logged log-prob and `gipo-robot run` drives the
policy on the goals of the comparison; the new policy is exported and driven on the same goals. Every further round adds
logs of the newest policy to the ones there are.

With --processes, robots share a stage's episodes; an episode is the same whichever process runs it.

Writes demo.json (all figures, with 95 % Wilson intervals, and every path), demo.png and demo.md. A finished stage is
not run again: the same command goes on where it was interrupted.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from gipo.commands.studies.options import add_more, add_numbers, add_runs, refuse_settled, refuse_twice
from gipo.commands.studies.pipeline.headings import Narrator, Stage
from gipo.commands.studies.pipeline.processes import advance, in_order, side_by_side
from gipo.commands.studies.pipeline.robots import RobotScore
from gipo.commands.studies.pipeline.stages import POST_TRAINED, TRAINED, Stages
from gipo.commands.studies.pipeline.subjects import Subject, add_task, parse_gap, subject_of
from gipo.commands.studies.run_tables import read_curves
from gipo.common.files import write_text
from gipo.common.intervals import with_interval

# Episode seeds: goals of the comparison, and of the logs of the first round; further rounds follow on.
COMPARISON, LOGGED = 900_000, 100_000
SETTINGS = ("rounds", "frames", "demonstrations", "logged", "episodes", "train", "post")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how many loops there are, how long each is, and how the robot differs."""
    add_runs(parser, [22], "loop")
    add_numbers(parser, "--rounds", 1, 1000, "rounds of logging and post-training")
    add_numbers(parser, "--frames", 50_000, 10**10, "steps of training in simulation")
    add_numbers(parser, "--demonstrations", 150, 10**5, "episodes to clone in its place, of a task that says so")
    add_numbers(parser, "--logged", 60, 10**5, "episodes to learn from, a round")
    add_numbers(parser, "--episodes", 50, 10**5, "episodes of the comparison")
    add_task(parser)
    add_more(parser, "--train", "`gipo fit`")
    add_more(parser, "--post", "post-training")


def run(options: argparse.Namespace) -> None:
    """Run every loop and write what came out."""
    refuse_twice(options, "seeds")
    refuse_settled(options, "train", TRAINED)
    refuse_settled(options, "post", POST_TRAINED)
    subject = subject_of(options)
    gap = parse_gap(options.gap, subject)
    results = run_loops(subject, gap, options)
    from gipo.commands.studies.loop_report import gain, plot, report  # imports matplotlib, for what comes last

    found = {
        "gap": gap,
        "settings": {key: getattr(options, key) for key in SETTINGS},
        "median_gain": statistics.median(gain(result) for result in results),
        "seeds": results,
    }
    text = report(results, options)
    write_text(json.dumps(found, indent=1) + "\n", options.out / "demo.json")
    write_text(text + "\n", options.out / "demo.md")
    plot(results, options.out / "demo.png")
    print(f"\n{text}\n")


def files(options: argparse.Namespace) -> str:
    """Where everything is, for `gipo-study` to print at the end."""
    from gipo.commands.studies.loop_report import files as tree

    return tree(options)


def run_loops(subject: Subject, gap: Mapping[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One loop with a heading for each stage and the bar of its command; several under one bar, a line a result."""
    count = 1 + 2 * (options.rounds + 1) + 3 * options.rounds
    beside = max(1, options.processes // len(options.seeds))
    if len(options.seeds) == 1:
        (seed,) = options.seeds
        stages = Stages(gap, subject, beside=beside, bars=sys.stderr.isatty())
        _say(f"Seed {seed}, files in {options.out}; the robot differs from the simulator by {' '.join(options.gap)}")
        with (
            stages.commands,
            side_by_side(stages.commands, 1) as pool,
        ):
            one = Loop(stages, options.out / f"seed-{seed}", seed, options, Narrator(count, say=_say))
            return list(in_order([pool.submit(one.run)]))
    stages = Stages(gap, subject, beside=beside)
    with (
        stages.commands,
        tqdm(total=len(options.seeds) * count, desc="loops", unit="stage", smoothing=0) as bar,
        side_by_side(stages.commands, min(options.processes, len(options.seeds))) as pool,
    ):
        loops = [
            Loop(stages, options.out / f"seed-{seed}", seed, options,
                 Narrator(count, f"seed {seed}", tqdm.write, partial(advance, bar)))
            for seed in options.seeds
        ]  # fmt: skip
        return list(in_order([pool.submit(loop.run) for loop in loops]))


@dataclass
class Loop:
    """One loop of `options.rounds` rounds.

    What does not need what another stage makes runs beside it: a policy is judged on the robot, and its logs are
    audited, while the next one learns from them.

    Args:
        stages: as commands.
        folder: of its files.
        seed: of all that it trains.
        options: of the study.
        narrator: tells how it goes.
    """

    stages: Stages
    folder: Path
    seed: int
    options: argparse.Namespace
    narrator: Narrator
    _logs: list[Path] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Run the loop to its end; its figures and paths, plain data."""
        tell, rounds = self.narrator.stage, []
        train = (f"Train in simulation for {self.options.frames:,} steps", self._train)
        clone = (f"Clone {self.options.demonstrations:,} demonstrations of the task's script", self._clone)
        checkpoint = tell(*(clone if self.stages.subject.script else train))
        for index in range(self.options.rounds + 1):
            paths = {"checkpoint": checkpoint, "policy": self._policy(index), "compared": self._compared(index)}
            found: dict[str, Any] = {key: str(path) for key, path in paths.items()}
            self.stages.prepare_robots()
            if index < self.options.rounds:
                self.stages.prepare("gipo")  # for the post-training
            tell("Export the policy that goes onto the robot", partial(self._export, checkpoint, index))
            goals = f"{self.options.episodes} goals"
            if index == self.options.rounds:
                same = f"Run it on the robot: {'the same ' * bool(index)}{goals}"
                compared = tell(same, partial(self._compare, self.stages, index))
            else:
                title = f"Log {self.options.logged} episodes of the robot to learn from"
                found["logged_success"] = tell(title, partial(self._log, index)).rate
                found["logs"] = str(self._logs[-1])
                compared, checkpoint = self._learn(
                    checkpoint, index, f"Run the policy that logged them: {goals} to compare"
                )
            rounds.append({**found, **compared.summary()})
        return {"seed": self.seed, "rounds": rounds}

    def _learn(self, checkpoint: Path, index: int, title: str) -> tuple[RobotScore, Path]:
        """Post-train on the logs so far; beside it, audit them and run the policy `index` on the goals to compare."""
        others = self.stages.in_background(max(1, self.stages.beside - 1))
        audit = "Audit the logs: recompute every log-prob from the artifact alone"

        def compare(told: Stage) -> RobotScore:
            compared = self._compare(others, index, told)
            self.stages.prepare("gipo-deploy")  # a core is idle until the next policy is there
            return compared

        parts: list[tuple[str, Callable[[Stage], Any]]] = [
            (audit, partial(self._audit, others, index)),
            ("Post-train on these logs alone", partial(self._post_train, checkpoint, index)),
            (title, compare),
        ]
        with side_by_side(self.stages.commands, min(len(parts), self.stages.beside)) as pool:
            _, learned, compared = self.narrator.together(pool, parts)
        return compared, learned

    def _train(self, told: Stage) -> Path:
        folder = self.folder / "train"
        checkpoints = self.stages.train(folder, self.seed, self.options.frames, _flags(self.options.train))
        told.result = evaluated(folder)
        return checkpoints / "last.ckpt"

    def _clone(self, told: Stage) -> Path:
        folder, seed = self.folder / "train", self.seed
        shown = self.stages.demonstrate(self.folder / "demonstrations", seed, self.options.demonstrations)
        checkpoints = self.stages.clone(folder, seed, shown, _flags(self.options.train))
        told.result = evaluated(folder)
        return checkpoints / "last.ckpt"

    def _export(self, checkpoint: Path, index: int, told: Stage) -> None:
        told.detail = str(self.stages.export(checkpoint, self._policy(index)))

    def _log(self, index: int, told: Stage) -> RobotScore:
        folder, count = self.folder / f"round-{index}" / "logs", self.options.logged
        logged = self.stages.drive(self._policy(index), folder, count, LOGGED + index * count)
        told.result = logged.text()
        self._logs.append(folder)
        return logged

    def _audit(self, stages: Stages, index: int, told: Stage) -> None:
        stages.audit(self._logs, self.folder / "policies", self.folder / f"round-{index}")
        told.detail = "all are reproduced"

    def _post_train(self, checkpoint: Path, index: int, told: Stage) -> Path:
        learned = self.stages.post_train(
            self.folder / f"round-{index + 1}" / "run", self._logs, checkpoint, self.folder / "policies", self.seed,
            _flags(self.options.post),
        )  # fmt: skip
        told.detail = str(learned)
        return learned

    def _compare(self, stages: Stages, index: int, told: Stage) -> RobotScore:
        compared = stages.drive(self._policy(index), self._compared(index), self.options.episodes, COMPARISON)
        told.result = compared.text()
        return compared

    def _policy(self, index: int) -> Path:
        return self.folder / "policies" / f"round-{index}.onnx"

    def _compared(self, index: int) -> Path:
        return self.folder / f"round-{index}" / "compared"


def evaluated(folder: Path) -> str:
    """What the last evaluation of a run said of success; empty where it was never evaluated."""
    rows = [row for row in read_curves(folder) if "val/success" in row]
    if not rows:
        return ""
    rate, low, high = (rows[-1][f"val/success{end}"] for end in ("", "_low", "_high"))
    return f"success {with_interval(rate, low, high)} in simulation"


def _say(line: str) -> None:
    """Print a line; at a terminal over the bar that a command may be drawing there, which it draws again below."""
    print(("\r\033[K" if sys.stdout.isatty() else "") + line, flush=True)


def _flags(options: list[str]) -> list[str]:
    return [f"--{option}" for option in options]
