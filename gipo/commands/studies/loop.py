"""Train in simulation, run on a robot that is unlike it, post-train on what it logged, run again on the same goals.

For every seed: `gipo fit` trains a policy in simulation; `gipo-deploy export` makes it an artifact; `gipo-robot run`
drives the simulated robot, whose reality gap it has never seen, once on the goals of the comparison and once more to
collect logs; `gipo-robot audit` recomputes every logged log-prob; `gipo fit --config post_train.yaml` learns from these
logs alone; the new policy is exported and driven on the goals of the comparison. Every further round adds logs of the
newest policy to the ones there are.

Writes demo.json (all figures, with 95 % Wilson intervals, and every path), demo.png and demo.md. A finished stage is
not run again: the same command goes on where it was interrupted.
"""

import argparse
import csv
import functools
import json
import statistics
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from gipo.commands.studies.headings import Narrator
from gipo.commands.studies.loop_report import files as files  # `gipo-study` prints them at the end
from gipo.commands.studies.loop_report import gain, plot, report
from gipo.commands.studies.options import add_more, add_numbers, add_runs
from gipo.commands.studies.stages import Stages, parse_gap
from gipo.common.files import write_text
from gipo.common.intervals import with_interval

GAP = ("action_offset=.25",)
# Episode seeds: goals of the comparison, and of the logs of the first round; further rounds follow on.
COMPARISON, LOGGED = 900_000, 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how many loops there are, how long each is, and how the robot differs."""
    add_runs(parser, [22], "loop")
    add_numbers(parser, "--rounds", 1, 1000, "rounds of logging and post-training")
    add_numbers(parser, "--frames", 80_000, 10**10, "steps of training in simulation")
    add_numbers(parser, "--logged", 60, 10**5, "episodes to learn from, a round")
    add_numbers(parser, "--episodes", 50, 10**5, "episodes of the comparison")
    parser.add_argument(
        "--gap", nargs="+", default=list(GAP), metavar="KEY=VALUE",
        help="how the robot differs from the simulator; fields of robots.drivers.sim.RealityGap (%(default)s)",
    )  # fmt: skip
    add_more(parser, "--train", "`gipo fit`")
    add_more(parser, "--post", "post-training")


def run(options: argparse.Namespace) -> None:
    """Run every loop and write what came out."""
    gap = parse_gap(options.gap)
    try:
        results = run_loops(gap, options)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"the same command with --out {options.out} goes on from here") from error
    found = {
        "gap": gap,
        "settings": {key: getattr(options, key) for key in ("rounds", "frames", "logged", "episodes", "train", "post")},
        "median_gain": statistics.median(gain(result) for result in results),
        "seeds": results,
    }
    text = report(results, options)
    write_text(json.dumps(found, indent=1) + "\n", options.out / "demo.json")
    write_text(text + "\n", options.out / "demo.md")
    plot(results, options.out / "demo.png")
    print(f"\n{text}\n")


def run_loops(gap: Mapping[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One loop with a heading for each stage and the bar of its command; several under one bar, a line a result."""
    count = 1 + 2 * (options.rounds + 1) + 3 * options.rounds
    if len(options.seeds) == 1:
        (seed,) = options.seeds
        stages = Stages(gap, bars=sys.stderr.isatty())
        say = functools.partial(print, flush=True)
        say(f"Seed {seed}, files in {options.out}; the robot differs from the simulator by {' '.join(options.gap)}")
        return [loop(stages, options.out / f"seed-{seed}", seed, options, Narrator(count, say=say))]
    stages = Stages(gap)
    with (
        tqdm(total=len(options.seeds) * count, desc="loops", unit="stage", smoothing=0) as bar,
        ThreadPoolExecutor(min(options.processes, len(options.seeds))) as pool,
    ):

        def one(seed: int) -> dict[str, Any]:
            told = Narrator(count, f"seed {seed}", tqdm.write, bar.update)
            return loop(stages, options.out / f"seed-{seed}", seed, options, told)

        try:
            return list(pool.map(one, options.seeds))
        except BaseException:
            stages.ended.set()
            raise


def loop(stages: Stages, folder: Path, seed: int, options: argparse.Namespace, narrator: Narrator) -> dict[str, Any]:
    """One loop of `options.rounds` rounds; its figures and paths, plain data."""
    policies, logs, rounds = folder / "policies", [], []
    with narrator.stage(f"Train in simulation for {options.frames:,} steps") as told:
        checkpoint = stages.train(folder / "train", seed, options.frames, _flags(options.train)) / "last.ckpt"
        told.result = evaluated(folder / "train")
    for index in range(options.rounds + 1):
        policy = policies / f"round-{index}.onnx"
        with narrator.stage("Export the policy that goes onto the robot") as told:
            told.detail = str(stages.export(checkpoint, policy))
        compared = folder / f"round-{index}" / "compared"
        with narrator.stage(f"Run it on the robot: {'the same ' * bool(index)}{options.episodes} goals") as told:
            outcome = stages.drive(policy, compared, options.episodes, COMPARISON)
            told.result = outcome.text()
        found: dict[str, Any] = {"checkpoint": checkpoint, "policy": policy, "compared": compared}
        if index < options.rounds:
            logs.append(folder / f"round-{index}" / "logs")
            with narrator.stage(f"Log {options.logged} more episodes to learn from, with other goals") as told:
                logged = stages.drive(policy, logs[-1], options.logged, LOGGED + index * options.logged)
                told.result = logged.text()
            with narrator.stage("Audit the logs: recompute every log-prob from the artifact alone") as told:
                stages.audit(logs, policies, folder / f"round-{index}")
                told.detail = "all are reproduced"
            run_folder = folder / f"round-{index + 1}" / "run"
            with narrator.stage("Post-train on these logs alone") as told:
                checkpoint = stages.post_train(run_folder, logs, checkpoint, policies, seed, _flags(options.post))
                told.detail = str(checkpoint)
            found |= {"logged_success": logged.rate, "logs": logs[-1]}
        rounds.append({**{key: _plain(value) for key, value in found.items()}, **outcome.summary()})
    return {"seed": seed, "rounds": rounds}


def evaluated(folder: Path) -> str:
    """What the last evaluation of a run said of success; empty where it was never evaluated."""
    with open(folder / "curves.csv") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/success")]
    if not rows:
        return ""
    rate, low, high = (float(rows[-1][f"val/success{end}"]) for end in ("", "_low", "_high"))
    return f"success {with_interval(rate, low, high)} in simulation"


def _flags(options: list[str]) -> list[str]:
    return [f"--{option}" for option in options]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
