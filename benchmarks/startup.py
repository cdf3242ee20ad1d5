"""How long commands take to begin, as ratios to `python -c "import torch"`: help, and a run at its first step.

Every command is started in turns with the import, as processes of their own. Each ratio is that of the processor times
(of the quickest turn of each), which other work on the machine adds little to; seconds by the clock are shown beside.
"""

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

# Ends at the first step of an environment: what a user waits for.
FIRST_STEP = """
import os, sys
from gipo.cli import main
def first_step(*_):
    os.replace(sys.argv[1] + "/begun", sys.argv[1] + "/stepped")
    os._exit(0)
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "datamodules.collect.rollouts":  # everything that it needs of the environments is imported by then
            import datamodules.envs.batched
            datamodules.envs.batched.BatchedEnv._step = first_step
sys.meta_path.insert(0, Watch())
open(sys.argv[1] + "/begun", "w").close()
main(["fit", "--trainer.default_root_dir=" + sys.argv[1] + "/run"])
"""
BOUNDS = {"help": 1.5, "study_help": 0.5, "first_step": 4.0}  # times the import of torch


def run(turns: int = 5) -> dict[str, Any]:
    """Ratios and seconds of `gipo --help`, `gipo-study --help` and `gipo fit` at its first step."""
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "torch": [python, "-c", "import torch"],
            "help": [python, "-m", "gipo.cli", "--help"],
            "study_help": [python, "-m", "gipo.commands.studies.cli", "--help"],
            "first_step": [python, "-c", FIRST_STEP, folder],
        }
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for turn in range(turns + 1):  # the first fills the caches
            for name, command in commands.items():
                seconds = _timed(command)
                if name == "first_step":
                    os.remove(os.path.join(folder, "stepped"))  # which only the first step makes
                if turn:
                    measured[name].append(seconds)
    clock, processor = ({name: min(turn[kind] for turn in of) for name, of in measured.items()} for kind in (0, 1))
    ratios = {name: processor[name] / processor["torch"] for name in BOUNDS}
    return {
        **{f"{name}_to_import_torch": ratio for name, ratio in ratios.items()},
        **{f"{name}_s": seconds for name, seconds in clock.items()},
        **{f"{name}_processor_s": seconds for name, seconds in processor.items()},
        "bounds": BOUNDS,
        "ok": all(ratios[name] <= bound for name, bound in BOUNDS.items()),
    }


def _timed(command: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of processor time that a process takes."""
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return elapsed, used
