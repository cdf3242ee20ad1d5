"""How long commands take to begin, as ratios to `python -c "import torch"`.

Help of `gipo` and `gipo-study`; `gipo fit` until it has a first batch to learn from; an export; `gipo-robot run` until
it has run one step. Every command is started in turns with the import, as processes of their own. Each ratio is that of
the processor times (of the quickest turn of each, without that of a run's collector), which other work on the machine
adds little to; seconds by the clock are shown beside.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

BOUNDS = {"help": 0.2, "study_help": 0.2, "first_batch": 4.0, "export": 4.5, "first_robot_step": 0.9}  # × torch
REACHED = 7  # exit code of a run that was ended at its first batch


class EndAtFirstBatch(Callback):
    """Ends a run when it has all that its first update needs, which is what a user waits for."""

    def on_train_batch_start(self, *args: Any) -> None:
        """End the process; its workers end with it."""
        os._exit(REACHED)


def run(turns: int = 5) -> dict[str, Any]:
    """Ratios and seconds of each command."""
    from benchmarks.robots import default_policy

    measured: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        default_policy(Path(folder))
        for turn in range(turns + 1):  # the first fills the caches
            for name, command in commands(folder, turn).items():
                seconds = timed(command, REACHED if name == "first_batch" else 0)
                if turn:
                    measured.setdefault(name, []).append(seconds)
    clock, processor = ({name: min(turn[kind] for turn in of) for name, of in measured.items()} for kind in (0, 1))
    ratios = {name: processor[name] / processor["torch"] for name in BOUNDS}
    return {
        **{f"{name}_to_import_torch": ratio for name, ratio in ratios.items()},
        **{f"{name}_s": seconds for name, seconds in clock.items()},
        **{f"{name}_processor_s": seconds for name, seconds in processor.items()},
        "bounds": BOUNDS,
        "ok": all(ratios[name] <= bound for name, bound in BOUNDS.items()),
    }


def commands(folder: str, turn: int) -> dict[str, list[str]]:
    """What is timed in a turn: name → command; `folder` holds a checkpoint `a.ckpt` and its artifact `a.onnx`."""
    python = [sys.executable, "-m"]
    fit = ["fit", f"--trainer.callbacks+={__name__}.EndAtFirstBatch", f"--trainer.default_root_dir={folder}/{turn}"]
    robot = ["run", "--policy", f"{folder}/a.onnx", "--episodes", "1", "--steps", "1", "--log", f"{folder}/logs"]
    return {
        "torch": [sys.executable, "-c", "import torch"],
        "help": [*python, "gipo.cli", "--help"],
        "study_help": [*python, "gipo.commands.studies.cli", "--help"],
        "first_batch": [*python, "gipo.cli", *fit],
        "export": [*python, "deploy.cli", "export", f"{folder}/a.ckpt", "--rate", "80", "--out", f"{folder}/b.onnx"],
        "first_robot_step": [*python, "robots.cli", *robot],
    }


def timed(command: list[str], code: int = 0) -> tuple[float, float]:
    """Seconds by the clock and of processor time that a process takes to end with this exit code."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != code:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr}")
    elapsed, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return elapsed, used
