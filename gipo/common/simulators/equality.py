"""Which MetaWorld tasks are the same in EnvPool, as `python -m benchmarks simulators` measured it."""

import json
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from gipo.common.extras import install
from gipo.common.simulators.native import available

MEASURED = Path(__file__).with_name("equality.json")
OWN_MUJOCO = "3.6.0"  # that EnvPool 1.2.5 is built with
COMPARED = ("envpool", "metaworld", "mujoco")  # packages whose versions it was measured with


@cache
def measured() -> dict[str, Any]:
    """Versions that were compared, the tolerances, and what was found for each of the fifty tasks."""
    found: dict[str, Any] = json.loads(MEASURED.read_text())
    return found


def why_not_native(task: str) -> str | None:
    """Why MetaWorld's Python is to simulate a task unless it is asked otherwise; None where EnvPool may."""
    if not available():
        return f"envpool is not installed ({install('fast')})"
    for package, version in measured()["versions"].items():
        if (installed := metadata.version(package)) != version:
            return f"{package} is {installed}, and it was compared with {version}"
    return exception(task)


def exception(task: str) -> str | None:
    """What about a task is not the same in EnvPool; None where it is."""
    found = measured()["tasks"].get(task, {"differs": "it has not been compared"})["differs"]
    return None if found is None else str(found)
