"""What each objective gains from the same stale logs: post-training over seeds and amounts of staleness.

The policies that `gipo-study loop` trained in simulation are deployed on its robot with the same gap. Logs come from
older versions of each: from 1, 2 and 3 saved checkpoints back. Every objective post-trains the deployed policy on the
same logs, with the same number of updates, and is driven on the same goals.

Beside the objectives stand what a robot team would try first on the same logs, each with its own settings
(post_train_bc.yaml, _awr and _iql): cloning of the episodes that succeeded (FilteredBC), advantage-weighted regression
(AWR) and implicit Q-learning (IQL).

Logs hold whole episodes of the robot, so that the age of data is not the phase of its episode here.

Writes runs.csv (every run), posttrain.csv (interquartile mean of the gain in any-step success over seeds, with 95 %
intervals), posttrain.png and posttrain.md, which also says how much more the first objective gained than each of the
others, in pairs of one seed. A finished run is not run again; --runs FILE makes the tables and the figure
of such a runs.csv again, and runs nothing.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from gipo.callbacks.plots import draw_intervals, pyplot, save_figure
from gipo.commands.studies.loop import COMPARISON, LOGGED
from gipo.commands.studies.options import (
    add_more,
    add_numbers,
    add_objectives,
    add_runs,
    objective_flags,
    refuse_settled,
    refuse_twice,
    refuse_unknown,
)
from gipo.commands.studies.pipeline.processes import all_made, in_order, under_a_bar
from gipo.commands.studies.pipeline.stages import POST_TRAINED, TRAINED, Stages
from gipo.commands.studies.pipeline.subjects import add_task, parse_gap, subject_of
from gipo.commands.studies.run_tables import Columns, distinct, made_or_read, rate, refuse_unpaired
from gipo.commands.studies.staleness_figures import INTERVALS
from gipo.commands.studies.statistics import Array, Interval, improvement_interval, iqm_interval, paired_interval
from gipo.common.errors import UserError
from gipo.common.files import write_text
from gipo.common.intervals import with_interval
from gipo.common.parsing import path
from gipo.common.tables import counted, markdown, write_table

plt = pyplot()

COLUMNS: Columns = {"seed": int, "back": int, "objective": str, "before": rate, "after": rate, "gain": float}
RIVALS = {"FilteredBC": "post_train_bc.yaml", "AWR": "post_train_awr.yaml", "IQL": "post_train_iql.yaml"}
SEEING = ("toy",)  # a clone has no older versions
EVERY = 10  # iterations between two saved checkpoints, `checkpoint.every` of the recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what is post-trained, on logs of which age, and how the robot differs."""
    parser.add_argument("--loops", type=path, default=Path("studies/loop"), help="of gipo-study loop (%(default)s)")
    add_runs(parser, [22, 64, 99, 234, 360], "run")
    by_age = [f"gipo.adaptive.AgeAwareGIPO:outward_only={each}" for each in ("true", "false")]
    ours = ["GIPO", *by_age, "PPOClip", "SAPO", "M2PO", "VESPO", "NoClip"]
    add_objectives(parser, [*ours, *RIVALS], "; options after a colon, GIPO:sigma=0.5; or a rival")
    add_numbers(parser, "--back", [1, 2, 3], 1000, "checkpoints back")
    add_numbers(parser, "--frames", 50_000, 10**10, "steps of training in simulation")
    add_numbers(parser, "--logged", 40, 10**5, "episodes to learn from")
    add_numbers(parser, "--episodes", 50, 10**5, "episodes of the comparison")
    add_task(parser, SEEING)
    add_more(parser, "--train", "`gipo fit`, as gipo-study loop had them")
    add_more(parser, "--post", "post-training")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="a runs.csv: write what it comes to, run nothing")


def run(options: argparse.Namespace) -> None:
    """Run what is not finished, and write what came out."""
    if options.runs is not None:
        options.objectives = list(map(label, options.objectives))
    rows = made_or_read(options, run_all, COLUMNS, "back", "objective")
    refuse_unpaired(rows, back=distinct(rows, "back"), objective=distinct(rows, "objective"))
    table = summarise(rows)
    write_table(table, options.out / "posttrain.csv")
    text = report(table, rows)
    write_text(text + "\n", options.out / "posttrain.md")
    plot(table, options.out / "posttrain.png")
    print(f"\n{text}")


def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run what is not finished; a row for every run."""
    refuse_twice(options, "seeds", "back", "objectives")
    refuse_settled(options, "train", TRAINED)
    refuse_settled(options, "post", (*POST_TRAINED, "model.objective"))
    refuse_unknown(each for each in options.objectives if each not in RIVALS)
    labels = list(map(label, options.objectives))
    if len(set(labels)) < len(labels):
        raise UserError(f"--objectives: the tables call two of these the same: {' '.join(options.objectives)}")
    subject = subject_of(options, SEEING)
    stages = Stages(parse_gap(options.gap, subject), subject)
    if options.frames % (EVERY * 1000):
        raise UserError(f"--frames must be a multiple of {EVERY * 1000}, one saved checkpoint; got {options.frames}")
    if options.frames // 1000 - EVERY * max(options.back) < EVERY:
        raise UserError(f"--back {max(options.back)} reaches before the first checkpoint of {options.frames} frames")
    plan = list(product(options.seeds, options.back, options.objectives))
    with under_a_bar(stages.commands, options.processes, len(options.seeds) + len(plan), "post-training") as submit:
        prepared = [submit(prepare, stages, options, seed) for seed in options.seeds]
        before = dict(zip(options.seeds, in_order(prepared), strict=True))
        runs = [submit(post_train, stages, options, *one, before[one[0]]) for one in plan]
        return all_made(runs, options.out / "runs.csv")


def prepare(stages: Stages, options: argparse.Namespace, seed: int) -> float:
    """Train, deploy, and log with every older version; the deployed policy's success."""
    folder, deployed = options.out / f"seed-{seed}", options.frames // 1000
    trained = options.loops / f"seed-{seed}" / "train"
    checkpoints = stages.train(trained, seed, options.frames, [f"--{option}" for option in options.train])
    for back in options.back:
        version = deployed - EVERY * back
        policy = stages.export(checkpoints / f"version-{version}.ckpt", folder / "policies" / f"{version}.onnx")
        stages.drive(policy, folder / f"logs-{back}", options.logged, LOGGED)
    policy = stages.export(checkpoints / "last.ckpt", folder / "policies" / f"{deployed}.onnx")
    return stages.drive(policy, folder / "deployed", options.episodes, COMPARISON).rate


def post_train(
    stages: Stages, options: argparse.Namespace, seed: int, back: int, objective: str, before: float
) -> dict[str, Any]:
    """Post-train on the logs of `back` checkpoints ago and drive again; a row.

    Its gain is over `before`, the success of the deployed policy.
    """
    folder = options.out / f"seed-{seed}"
    where = folder / f"back-{back}-{objective}"
    chosen = [f"--config={RIVALS[objective]}"] if objective in RIVALS else objective_flags(objective)
    extra = [*chosen, *(f"--{option}" for option in options.post)]
    init = options.loops / f"seed-{seed}" / "train" / "checkpoints" / "last.ckpt"
    logs = [folder / f"logs-{back}"]
    checkpoint = stages.post_train(where / "run", logs, init, folder / "policies", seed, extra)
    policy = stages.export(checkpoint, where / "policy.onnx")
    after = stages.drive(policy, where / "compared", options.episodes, COMPARISON).rate
    found = {"before": before, "after": after, "gain": after - before}
    return {"seed": seed, "back": back, "objective": label(objective), **found}


def label(objective: str) -> str:
    """What the tables call an objective: its class without a path, and its options."""
    name, colon, settings = objective.partition(":")
    return name.rpartition(".")[2] + colon + settings


def summarise(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Interquartile mean of the gain with its bootstrap interval, for every objective and staleness."""
    table = []
    for back, objective in product(distinct(rows, "back"), distinct(rows, "objective")):
        gains = np.array([[r["gain"] for r in rows if (r["back"], r["objective"]) == (back, objective)]])
        gain, low, high = iqm_interval(gains)
        table.append(
            {"back": back, "objective": objective, "seeds": gains.size, "gain": gain, "low": low, "high": high}
        )
    return table


def report(table: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """The table in Markdown, and where the first objective does not win."""
    backs, names = distinct(table, "back"), distinct(table, "objective")
    cells = {(row["back"], row["objective"]): row for row in table}
    shown = []
    for back in backs:
        found = [cells[back, name] for name in names]
        gains = [with_interval(each["gain"], each["low"], each["high"], "+.2f") for each in found]
        shown.append((f"{back} back", *gains))
    lines = [markdown(("logs from", *names), shown), ""]
    lines += [f"Interquartile mean over {counted(table[0]['seeds'], 'seed')} of the gain in any-step success, with "
              f"{INTERVALS}."]  # fmt: skip
    mine = names[0]
    for back in backs:
        gained = {name: round(cells[back, name]["gain"], 9) for name in names}  # what differs by rounding is level
        better = [name for name in names if gained[name] > gained[mine]]
        even = [name for name in names[1:] if gained[name] == gained[mine]]
        verdict = f"{mine} gains most."
        if better or even:
            how = "more" if better else "as much"
            verdict = f"{mine} does not win; {how} gained by {', '.join(better or even)}."
        lines.append(f"- {back} back: {verdict}")
    for name in names[1:]:
        ours, theirs = (mean_gains(rows, each) for each in (mine, name))
        chance = with_interval(*improvement_interval(ours, theirs))
        lines.append(f"- Probability that a run of {mine} gains more than one of {name}, mean over ages: {chance}.")
    header = (f"{mine}'s gain minus that of", *(f"{back} back" for back in backs), "mean")
    more = [(name, *(with_interval(*each, "+.2f") for each in paired_gains(rows, mine, name))) for name in names[1:]]
    if more:
        lines += ["", markdown(header, more), "", "Means over pairs of one seed, with Student's 95 % intervals."]
    return "\n".join(lines)


def mean_gains(rows: Sequence[dict[str, Any]], objective: str) -> Array:
    """Gains [1, S] of an objective, of each seed the mean over ages: those share its policy, and go together."""
    backs = distinct(rows, "back")
    gains = [[row["gain"] for row in rows if (row["objective"], row["back"]) == (objective, back)] for back in backs]
    return np.array(gains).mean(0, keepdims=True).round(9)  # what differs by rounding is level


def paired_gains(rows: Sequence[dict[str, Any]], mine: str, other: str) -> list[Interval]:
    """How much more one objective gained than another in pairs of one seed: by who logged, and in the mean of all."""
    gains = {(row["seed"], row["back"], row["objective"]): row["gain"] for row in rows}
    seeds, backs = distinct(rows, "seed"), distinct(rows, "back")
    more = np.array([[gains[seed, back, mine] - gains[seed, back, other] for back in backs] for seed in seeds])
    return [paired_interval(each) for each in (*more.T, more.mean(1))]


def plot(table: Sequence[dict[str, Any]], path: Path) -> None:
    """Gain against staleness, one line an objective."""
    figure, axes = plt.subplots(figsize=(8.5, 4), layout="constrained")
    backs, names = distinct(table, "back"), distinct(table, "objective")
    draw_intervals(axes, {name: [row for row in table if row["objective"] == name] for name in names}, "gain")
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xticks(range(len(backs)), [f"{back} back" for back in backs])
    axes.set_xlabel("version that logged, checkpoints before the deployed one")
    axes.set_ylabel("gain in any-step success (IQM)")
    figure.legend(fontsize="small", loc="outside right upper")  # beside the points, of which it would hide some
    save_figure(figure, path)
