"""`python -m benchmarks [NAME ...] [--output FILE]`: one JSON line per benchmark, printed and written to a file."""

import argparse
import json
import logging
import os
import pkgutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

# Each is imported when it is run: a machine without LIBERO, say, still measures its GPU.
BENCHMARKS = {
    "startup": "benchmarks.startup:run",
    "metaworld_steps": "benchmarks.metaworld_steps:run",
    "collect": "benchmarks.collect:run",
    "scale": "benchmarks.scale:run",
    "fit": "benchmarks.fit:run",
    "update": "benchmarks.update:run",
    "update_default": "benchmarks.update_default:run",
    "update_gpu": "benchmarks.update_gpu:run",
    "memory": "benchmarks.memory:run",
    "loop": "benchmarks.loop:run",
    "onnx_latency": "benchmarks.artifact:latency",
    "onnx_load": "benchmarks.artifact:load",
    "control_loop": "benchmarks.robots:run_control_loop",
    "log_write": "benchmarks.robots:run_log_write",
    "log_read": "benchmarks.robots:run_log_read",
    "ingest": "benchmarks.ingest:run",
    "sight": "benchmarks.vision.sight:run",
    "vla_size": "benchmarks.vision.size:run",
    "libero_collect": "benchmarks.libero:run",
}


def main() -> None:
    """Run the benchmarks named, or all of them. Exit code 1 when one misses its bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all unless given")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.jsonl"), help="file to write (%(default)s)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # as `gipo fit` does
    warnings.filterwarnings("ignore", module="lightning|torch|torchrl|tensordict")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    met = True
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    # Written line by line: what is measured stays when a later benchmark fails.
    with open(arguments.output, "w") as file:
        for name in arguments.names or BENCHMARKS:
            load = os.getloadavg()[0]  # of the last minute; above 0 something else was running
            figures: dict[str, Any] = pkgutil.resolve_name(BENCHMARKS[name])()
            met &= figures["ok"]
            line = json.dumps({"benchmark": name, **_rounded(figures | {"load_average_before": load})})
            print(line, flush=True)
            print(line, file=file, flush=True)
    sys.exit(not met)


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in figures.items()}


if __name__ == "__main__":
    main()
