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
import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from tqdm.auto import tqdm

from gipo.errors import GipoError
from gipo.files import write_text
from gipo.plots import save_figure
from gipo.studies.stages import Stages, parse_gap

GAP = ("action_offset=.25",)
# Episode seeds: goals of the comparison, and of the logs of the first round; further rounds follow on.
COMPARISON, LOGGED = 900_000, 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the study."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[22], help="one loop each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of logging and post-training (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=80_000, help="steps of training in simulation (%(default)s)")
    parser.add_argument("--logged", type=int, default=60, help="episodes to learn from, a round (%(default)s)")
    parser.add_argument("--episodes", type=int, default=50, help="episodes of the comparison (%(default)s)")
    parser.add_argument(
        "--gap", nargs="+", default=list(GAP), metavar="KEY=VALUE",
        help="how the robot differs from the simulator; fields of robots.sim.RealityGap (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--train", nargs="*", default=[], metavar="OPTION", help="more options of `gipo fit`, without --"
    )
    parser.add_argument("--post", nargs="*", default=[], metavar="OPTION", help="more options of post-training")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="seeds side by side (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Run every loop and write what came out."""
    if options.rounds < 1 or min(options.logged, options.episodes, options.frames) < 1:
        raise GipoError("--rounds, --logged, --episodes and --frames must be at least 1")
    gap = parse_gap(options.gap)
    alone = len(options.seeds) == 1
    stages = Stages(gap, show=alone)

    def one(seed: int) -> dict[str, Any]:
        result = loop(stages, options.out / f"seed-{seed}", seed, options)
        bar.update()
        return result

    with (
        tqdm(total=len(options.seeds), desc="loops", unit="loop", disable=alone) as bar,
        ThreadPoolExecutor(max(1, min(options.processes or 1, len(options.seeds)))) as pool,
    ):
        results = list(pool.map(one, options.seeds))
    text = report(results, options)
    print(f"\n{text}")
    found = {
        "gap": gap,
        "settings": {key: getattr(options, key) for key in ("rounds", "frames", "logged", "episodes", "train", "post")},
        "median_gain": statistics.median(gain(result) for result in results),
        "seeds": results,
    }
    write_text(json.dumps(found, indent=1) + "\n", options.out / "demo.json")
    write_text(text + "\n", options.out / "demo.md")
    plot(results, options.out / "demo.png")


def loop(stages: Stages, folder: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One loop of `options.rounds` rounds; its figures and paths, plain data."""
    checkpoint = stages.train(folder / "train", seed, options.frames, _flags(options.train)) / "last.ckpt"
    policies, logs, rounds = folder / "policies", [], []
    for index in range(options.rounds + 1):
        policy = stages.export(checkpoint, policies / f"round-{index}.onnx")
        compared = folder / f"round-{index}" / "compared"
        outcome = stages.drive(policy, compared, options.episodes, COMPARISON)
        found: dict[str, Any] = {"checkpoint": checkpoint, "policy": policy, "compared": compared}
        if index < options.rounds:
            logs.append(folder / f"round-{index}" / "logs")
            first = LOGGED + index * options.logged
            found["logged_success"] = stages.drive(policy, logs[-1], options.logged, first).rate
            stages.audit(logs, policies, folder / f"round-{index}")
            run_folder = folder / f"round-{index + 1}" / "run"
            found["logs"] = logs[-1]
            checkpoint = stages.post_train(run_folder, logs, checkpoint, policies, seed, _flags(options.post))
        rounds.append({**{key: _plain(value) for key, value in found.items()}, **outcome.summary()})
    return {"seed": seed, "rounds": rounds}


def gain(result: dict[str, Any]) -> float:
    """Success after the last round − success of the policy that was deployed first."""
    return float(result["rounds"][-1]["success"] - result["rounds"][0]["success"])


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The table in Markdown, and what it comes to."""
    last = len(results[0]["rounds"]) - 1
    lines = [
        f"Any-step success on the robot with {' '.join(options.gap)}, {options.episodes} goals, 95 % intervals:",
        "",
        "| seed | deployed | " + " | ".join(f"post-trained, round {r}" for r in range(1, last + 1)) + " | gain |",
        "|---|---|" + "---|" * (last + 1),
    ]
    for result in results:
        cells = [f"{each['success']:.2f} [{each['low']:.2f}, {each['high']:.2f}]" for each in result["rounds"]]
        lines.append(f"| {result['seed']} | " + " | ".join(cells) + f" | {gain(result):+.2f} |")
    lines += ["", f"Median gain over {len(results)} seed{'s' * (len(results) > 1)}: "
              f"{statistics.median(map(gain, results)):+.2f}"]  # fmt: skip
    if len(results) == 1:
        lines += ["", *(f"{key} of round {index}: {each[key]}" for index, each in enumerate(results[0]["rounds"])
                        for key in ("checkpoint", "policy", "compared", "logs") if key in each)]  # fmt: skip
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Success before and after every round, one line a seed."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for shift, result in enumerate(results):
        rounds = result["rounds"]
        x = [index + 0.04 * (shift - (len(results) - 1) / 2) for index in range(len(rounds))]
        y = [each["success"] for each in rounds]
        error = [
            [each["success"] - each["low"] for each in rounds],
            [each["high"] - each["success"] for each in rounds],
        ]
        axes.errorbar(x, y, error, marker="o", capsize=3, label=f"seed {result['seed']}")
    count = len(results[0]["rounds"])
    axes.set_xticks(range(count), ["deployed", *(f"post-trained\nround {index}" for index in range(1, count))])
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("any-step success, 95 % interval")
    axes.set_title("The robot, before and after learning from its logs")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    save_figure(figure, path)


def _flags(options: list[str]) -> list[str]:
    return [f"--{option}" for option in options]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
