"""What people expect of a repository says the same as what it stands beside."""

import re
from pathlib import Path
from typing import Any

import tomllib
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.M))


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_hooks_are_the_tested_versions() -> None:
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {"ruff", "ruff-format", "check-toml"} <= {hook["id"] for hook in hooks}
    for hook in hooks:
        for requirement in hook["additional_dependencies"]:
            name, _, version = requirement.partition("==")
            assert pins()[name] == version, hook["id"]


def test_ci_runs_the_script_that_is_run_here() -> None:
    job = read(".github/workflows/ci.yml")["jobs"]["ci"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "python" in step.get("uses", "")]
    assert f"Python {python}" in (ROOT / "constraints.txt").read_text().partition("\n")[0]
    targets = re.findall(r"^make (\w+)$", (ROOT / ".ci/run").read_text(), re.M)
    assert {"lint", "test", "dist"} <= set(targets)
    assert set(targets) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert [citation[name] for name in ("title", "version", "license")] == [
        PROJECT["name"], PROJECT["version"], PROJECT["license"],
    ]  # fmt: skip
    (paper,) = citation["references"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["url"] in readme
    assert paper["title"].removeprefix("GIPO: ") in readme


def test_types_are_shipped() -> None:
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert shipped["*"] == ["py.typed"]
    for package in ("gipo", "datamodules", "robots", "deploy"):
        assert (ROOT / package / "py.typed").exists()
