"""What a person's help is worth: post-training from as many episodes with and without it, and from corrections alone.

The policies that `gipo-study loop` trained in simulation are deployed on its robot with the same gap. Each logs the
same goals twice, for equally many steps: alone, and with a scripted person who takes over where progress stalls and
hands back. Every way of learning from these logs makes equally many updates, and is driven on the same other goals:

  alone          GIPO on the policy's own steps, without help
  helped C       GIPO on the policy's steps of the helped logs; the person's are in returns, and imitated with weight C
  corrections    only what the person did is imitated (DAgger, as LeRobot has it)

Writes runs.csv (every run), people.csv (success, and its paired difference to learning alone, with 95 % intervals over
seeds) and people.md. A finished run is not run again; --runs FILE makes the tables of such a runs.csv again.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from gipo.commands.studies.loop import COMPARISON, LOGGED
from gipo.commands.studies.options import add_more, add_numbers, add_runs, refuse_settled, refuse_twice
from gipo.commands.studies.pipeline.processes import all_made, in_order, under_a_bar
from gipo.commands.studies.pipeline.stages import POST_TRAINED, TRAINED, Stages
from gipo.commands.studies.pipeline.subjects import add_task, parse_gap, subject_of
from gipo.commands.studies.run_tables import Columns, distinct, made_or_read, rate, refuse_unpaired
from gipo.commands.studies.statistics import paired_interval
from gipo.common.errors import UserError
from gipo.common.files import write_text
from gipo.common.intervals import with_interval
from gipo.common.parsing import number, path
from gipo.common.tables import counted, markdown, write_table
from gipo.common.transition import PERSON
from robots.log import files_below, read_log
from robots.people.scripted import ScriptedOperator
from robots.settings.annotations import arguments
from robots.settings.assignments import parse_settings

DEPLOYED, ALONE, CORRECTIONS = "deployed", "alone", "corrections"
COLUMNS: Columns = {"seed": int, "way": str, "success": rate, "person_share": rate, "logged_success": rate}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what is helped, how, and how the robot differs."""
    parser.add_argument("--loops", type=path, default=Path("studies/loop"), help="of gipo-study loop (%(default)s)")
    add_runs(parser, [22, 64, 99, 234, 360], "run")
    add_numbers(parser, "--frames", 50_000, 10**10, "steps of training in simulation")
    add_numbers(parser, "--logged", 20, 10**5, "episodes to learn from")
    add_numbers(parser, "--episodes", 50, 10**5, "episodes of the comparison")
    parser.add_argument(
        "--coefs", nargs="+", type=number(0, 1000), default=[0.0, 1.0, 10.0], metavar="C",
        help="weights of imitating the person (%(default)s)",
    )  # fmt: skip
    add_task(parser, seeing=())  # the person is MetaWorld's script, which goes by numbers
    add_more(parser, "--operator", "the scripted person, KEY=VALUE")
    add_more(parser, "--train", "`gipo fit`")
    add_more(parser, "--post", "post-training")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="a runs.csv: write what it comes to, run nothing")


def run(options: argparse.Namespace) -> None:
    """Run what is not finished, and write what came out."""
    rows = made_or_read(options, run_all, COLUMNS, "way")
    refuse_unpaired(rows, way=dict.fromkeys([*distinct(rows, "way"), ALONE, CORRECTIONS]))
    table = summarise(rows)
    write_table(table, options.out / "people.csv")
    text = report(table, rows)
    write_text(text + "\n", options.out / "people.md")
    print(f"\n{text}")


def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what is not finished; a row for every run."""
    refuse_twice(options, "seeds", "coefs")
    refuse_settled(options, "train", TRAINED)
    refuse_settled(options, "post", (*POST_TRAINED, "model.human_coef", "data.human_share"))
    subject = subject_of(options, seeing=())
    stages = Stages(parse_gap(options.gap, subject), subject)
    ours = {"spec": None, "manifest": None}  # which a session gives
    arguments(ScriptedOperator, parse_settings(options.operator, "--operator"), "--operator ", ours)
    ways = ways_to_learn(options.coefs)
    if len(ways) < len(ways_to_learn([])) + len(options.coefs):
        raise UserError(f"--coefs: the tables call two of these the same: {' '.join(map(str, options.coefs))}")
    plan = list(product(options.seeds, ways))
    with under_a_bar(stages.commands, options.processes, len(options.seeds) + len(plan), "people") as submit:
        deployed = list(in_order([submit(prepare, stages, options, seed) for seed in options.seeds]))
        learned = [submit(learn, stages, options, seed, way, ways[way]) for seed, way in plan]
        return [*deployed, *all_made(learned, options.out / "runs.csv", deployed)]


def ways_to_learn(coefs: Sequence[float]) -> dict[str, tuple[bool, list[str]]]:
    """Name of a way to learn → whether it learns from the helped logs, and options of its post-training."""
    helped = {f"helped {coef:g}": (True, [f"--model.human_coef={coef:g}"]) for coef in coefs}
    corrections = ["--data.human_share=1", "--model.human_coef=1"]
    return {ALONE: (False, []), **helped, CORRECTIONS: (True, corrections)}


def prepare(stages: Stages, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train, deploy, and log the same goals alone and with help; the row of the deployed policy."""
    folder = options.out / f"seed-{seed}"
    trained = options.loops / f"seed-{seed}" / "train"
    checkpoints = stages.train(trained, seed, options.frames, [f"--{option}" for option in options.train])
    policy = stages.export(checkpoints / "last.ckpt", folder / "policies" / "deployed.onnx")
    helping = ["--operator", "scripted", *(part for each in options.operator for part in ("--operator-set", each))]
    for helped, more in ((False, []), (True, helping)):
        stages.drive(policy, _logs(folder, helped), options.logged, LOGGED, more)
    stages.audit([_logs(folder, helped) for helped in (False, True)], folder / "policies", folder)
    return _row(stages, options, seed, DEPLOYED, policy, folder / "compared", None)


def learn(
    stages: Stages, options: argparse.Namespace, seed: int, way: str, how: tuple[bool, list[str]]
) -> dict[str, Any]:
    """Post-train in one of the ways, and drive again; a row."""
    folder, (helped, extra) = options.out / f"seed-{seed}", how
    where, logs = folder / way.replace(" ", "-"), _logs(folder, helped)
    more = [*extra, *(f"--{option}" for option in options.post)]
    init = options.loops / f"seed-{seed}" / "train" / "checkpoints" / "last.ckpt"
    checkpoint = stages.post_train(where / "run", [logs], init, folder / "policies", seed, more)
    policy = stages.export(checkpoint, where / "policy.onnx")
    return _row(stages, options, seed, way, policy, where / "compared", logs)


def _logs(folder: Path, helped: bool) -> Path:
    return folder / ("helped" if helped else "alone-logs")


def _row(
    stages: Stages, options: argparse.Namespace, seed: int, way: str, policy: Path, compared: Path, logs: Path | None
) -> dict[str, Any]:
    success = stages.drive(policy, compared, options.episodes, COMPARISON, ["--end-on-success"]).rate
    share, logged = (0.0, 0.0) if logs is None else _of_logs(logs)
    return {"seed": seed, "way": way, "success": success, "person_share": share, "logged_success": logged}


def _of_logs(folder: Path) -> tuple[float, float]:
    """The share of steps that the person commanded, and that of successful episodes."""
    episodes = [episode for file in files_below(folder) for episode in read_log(file).begun]
    source = np.concatenate([episode["source"] for episode in episodes])
    return float((source == PERSON).mean()), float(np.mean([bool(each.success) for each in episodes]))


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean success of every way over seeds, and its paired difference to learning alone with an interval."""
    of = {(row["seed"], row["way"]): row["success"] for row in rows}
    seeds, table = distinct(rows, "seed"), []
    for way in distinct(rows, "way"):
        found = np.array([of[seed, way] for seed in seeds])
        gain, low, high = paired_interval(found - np.array([of[seed, ALONE] for seed in seeds]))
        share = np.mean([row["person_share"] for row in rows if row["way"] == way])
        table.append({"way": way, "seeds": len(seeds), "success": found.mean(), "difference": gain, "low": low,
                      "high": high, "person_share": share})  # fmt: skip
    return table


def report(table: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """The tables in Markdown: every seed, and means with paired differences."""
    seeds, of = distinct(rows, "seed"), {(row["seed"], row["way"]): row for row in rows}
    lines = []
    for row in table:
        way = row["way"]
        each = [f"{of[seed, way]['success']:.2f}" for seed in seeds]
        difference = "" if way == ALONE else with_interval(row["difference"], row["low"], row["high"], "+.2f")
        lines.append((way, *each, f"{row['success']:.2f}", difference))
    head = ("way to learn", *(f"seed {seed}" for seed in seeds), "mean", "against alone")
    logged = {name: [row for row in rows if row["way"] == name] for name in (ALONE, CORRECTIONS)}
    alone, helped = (float(np.mean([row["logged_success"] for row in found])) for found in logged.values())
    share = float(np.mean([row["person_share"] for row in logged[CORRECTIONS]]))
    return (
        f"{markdown(head, lines)}\n\nAny-step success; differences are means over {counted(len(seeds), 'seed')}, "
        f"paired, with Student's 95 % intervals. In the logs {alone:.2f} of the episodes succeeded without help and "
        f"{helped:.2f} with it; the person commanded {100 * share:.0f} % of the helped steps."
    )
