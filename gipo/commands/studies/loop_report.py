"""The report of `gipo-study loop`: success before and after as table and picture, and where every file is."""

import argparse
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from gipo.callbacks.plots import draw_intervals, pyplot, save_figure
from gipo.commands.studies.file_tree import tree
from gipo.commands.studies.statistics import paired_interval
from gipo.common.intervals import with_interval
from gipo.common.tables import markdown

plt = pyplot()


def gain(result: dict[str, Any]) -> float:
    """Success after the last round − success of the policy that was deployed first."""
    return float(result["rounds"][-1]["success"] - result["rounds"][0]["success"])


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The table in Markdown, and what it comes to."""
    last = len(results[0]["rounds"]) - 1
    rows = []
    for result in results:
        cells = [with_interval(each["success"], each["low"], each["high"]) for each in result["rounds"]]
        rows.append((result["seed"], *cells, f"{gain(result):+.2f}"))
    lines = [
        f"Any-step success on the robot with {' '.join(options.gap)}, {options.episodes} goals, 95 % intervals:",
        "",
        markdown(("seed", "deployed", *(f"post-trained, round {r}" for r in range(1, last + 1)), "gain"), rows),
    ]
    if len(results) > 1:
        gains = np.array([gain(result) for result in results])
        told = f"Median gain over {len(results)} seeds: {np.median(gains):+.2f}"
        lines += ["", f"{told}; mean {with_interval(*paired_interval(gains), '+.2f')}, Student's interval"]
    return "\n".join(lines)


def files(options: argparse.Namespace) -> str:
    """Where everything is: a tree of the first seed's folder, and of what the study wrote."""
    policies = {0: "deployed first"} | {index: f"after round {index}" for index in range(1, options.rounds + 1)}
    inside = {"train/checkpoints/last.ckpt": "trained in simulation"}
    inside |= {f"policies/round-{index}.onnx": note for index, note in policies.items()}
    for index in policies:
        if index:
            inside[f"round-{index}/run/checkpoints/last.ckpt"] = "post-trained on all logs before"
        inside[f"round-{index}/compared"] = f"logs of the {options.episodes} goals"
        if index < options.rounds:
            inside[f"round-{index}/logs"] = f"{options.logged} episodes to learn from"
    first, *others = (f"seed-{seed}" for seed in options.seeds)
    notes = {"demo.md": "this table", "demo.json": "every figure", "demo.png": "the picture"}
    notes |= {f"{first}/{path}": note for path, note in inside.items()}
    notes |= dict.fromkeys(others, f"as {first}")
    said = sorted(str(path.relative_to(options.out)) for path in (options.out / first).rglob("*.txt"))
    details = textwrap.fill(", ".join(said), 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return f"{tree(str(options.out), notes)}\nWhat each command was, and all it said:\n{details}"


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Success before and after every round, one line a seed."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    draw_intervals(axes, {f"seed {result['seed']}": result["rounds"] for result in results}, "success")
    count = len(results[0]["rounds"])
    axes.set_xticks(range(count), ["deployed", *(f"post-trained\nround {index}" for index in range(1, count))])
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("any-step success, 95 % interval")
    axes.set_title("The robot, before and after learning from its logs")
    axes.legend(fontsize="small", loc="lower right")
    save_figure(figure, path)
