"""Every Python that we support: `make pythons` tests the base install on each, and the training extra on one.

An interpreter is looked for on the path and among pyenv's; one that is not there is told so at the end.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tests.docstrings import PACKAGES, ROOT

BASE_TESTS = ["tests/robots", "tests/deploy", "tests/gipo/common", "tests/test_imports.py"]
TRAIN_TESTS = [
    "tests/gipo/callbacks", "tests/gipo/commands/fit", "tests/gipo/distributed", "tests/gipo/learning",
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/gipo/test_*.py"))), "tests/datamodules/replay",
]  # fmt: skip
# What the tests themselves need; onnx changes artifacts into hostile ones.
TOOLS = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "onnx"]


@dataclass(frozen=True)
class Outcome:
    """How one install did on one version of Python."""

    version: str
    install: str
    imported: str
    tests: str
    ok: bool


def interpreter(version: str) -> Path | None:
    """`python3.X` of the path if it runs, else the newest of pyenv's."""
    found = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += sorted(map(str, pyenv.glob(f"{version}.*/bin/python")), key=len)[::-1]
    for path in filter(None, found):
        done = subprocess.run([path, "--version"], capture_output=True, text=True)
        if done.stdout.startswith(f"Python {version}."):
            return Path(path)
    return None


def import_all() -> None:
    """Import every module of the four packages; those that want a package that is not installed are counted.

    Raises:
        Exception: what else goes wrong at an import.
    """
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    missing = set()
    imported = 0
    for name in names:
        try:
            import_module(name)
            imported += 1
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in PACKAGES:
                raise
            missing.add(error.name.partition(".")[0])
    wanting = f"; the others want {', '.join(sorted(missing))}" if missing else ""
    print(f"{imported} of {len(names)} modules{wanting}")


def check(version: str, install: str, tests: list[str], folder: Path, artifacts: Path) -> Outcome:
    """Install in an environment of its own, import what can be imported, and run the tests."""
    python = interpreter(version)
    if python is None:
        return Outcome(version, install, "", "this Python is not installed here", ok=True)
    environment = folder / f"{version}-{install}"
    subprocess.run([python, "-m", "venv", "--clear", environment], check=True)
    own = environment / "bin" / "python"
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]
    subprocess.run([*pip, "-e", "." if install == "base" else f".[{install}]", *TOOLS], cwd=ROOT, check=True)
    code = "from tests.pythons import import_all; import_all()"
    imports = subprocess.run([own, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    command = [own, "-m", "pytest", "-m", "not campaign", "-n", "2", "-p", "no:cacheprovider", *tests]
    environ = {**os.environ, "GIPO_TEST_ARTIFACTS": str(artifacts)}
    done = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    summary = re.findall(r"^.*\d+ (?:passed|failed|error).*$", done.stdout, re.M)
    return Outcome(
        version, install, imports.stdout.strip(), summary[-1] if summary else "no tests ran",
        ok=imports.returncode == done.returncode == 0,
    )  # fmt: skip


def main() -> int:
    """Whether all that is installed here did well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environments are made")
    parser.add_argument("--base", nargs="*", default=[], help="versions that the base install is tested on")
    parser.add_argument("--train", nargs="*", default=[], help="versions that the training extra is tested on")
    options = parser.parse_args()
    artifacts = options.folder.resolve() / "artifacts"
    shutil.rmtree(artifacts, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "tests.artifacts", artifacts], cwd=ROOT, check=True)
    outcomes = [check(version, "base", BASE_TESTS, options.folder, artifacts) for version in options.base]
    outcomes += [check(version, "train", TRAIN_TESTS, options.folder, artifacts) for version in options.train]
    for one in outcomes:
        print(f"{'ok    ' if one.ok else 'FAILED'}  Python {one.version} {one.install}: {one.tests}; {one.imported}")
    return not all(one.ok for one in outcomes)


if __name__ == "__main__":
    sys.exit(main())
