"""`python -m benchmarks.simulators [TASK ...]`: one JSON line a task; `--write` keeps them for `data.simulator=auto`.

What a task needs to be the same is measured in two calls: with the MuJoCo that MetaWorld pins, and, from a folder made
by `pip install --no-deps --target FOLDER mujoco==VERSION`, with the one that EnvPool is built with:

    PYTHONPATH=FOLDER python -m benchmarks.simulators --write

Where they differ, MetaWorld's Python is the truth, and `auto` takes that.
"""

import argparse
import json
import warnings
from importlib import metadata
from typing import Any

from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from benchmarks.simulators.compare import differs, measure
from gipo.common.simulators import equality


def main() -> None:
    """Measure the tasks named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulators", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="all fifty unless given")
    parser.add_argument("--write", action="store_true", help=f"keep what is found in {equality.MEASURED.name}")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="metaworld")
    for task in arguments.tasks or ALL_V3_ENVIRONMENTS:
        found = measure(task)
        print(json.dumps({"task": task} | found), flush=True)
        if arguments.write:
            keep(task, found)


def keep(task: str, found: dict[str, Any]) -> None:
    """Add what was found of a task to the file, with what it makes of the task, and the versions that were compared."""
    whole = json.loads(equality.MEASURED.read_text())
    versions = {package: metadata.version(package) for package in equality.COMPARED}
    if "episodes" in found and versions != whole["versions"]:
        whole = {"versions": versions, "tasks": {}}  # what was found of other versions says nothing of these
    of_task = {key: value for key, value in (whole["tasks"].get(task, {}) | found).items() if key != "differs"}
    whole["tasks"][task] = {"differs": differs(of_task)} | of_task
    whole["tasks"] = {name: whole["tasks"][name] for name in ALL_V3_ENVIRONMENTS if name in whole["tasks"]}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in whole["tasks"].items())
    of = json.dumps(whole["versions"])
    equality.MEASURED.write_text(f'{{"versions": {of},\n"tasks": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
