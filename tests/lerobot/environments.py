"""The real LeRobot beside this package, in an environment of its own, and the tests that drive it: `make lerobot`.

LeRobot asks for an older torch than ours and runs with ours all the same, so that it is installed without what it
depends on; what it needs of that stands, with every version, in `requirements.txt`. The Python decides which LeRobot.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docstrings import ROOT
from tests.pythons import interpreter

FOLDER = Path(__file__).parent
REQUIREMENTS = FOLDER / "requirements.txt"
WITHOUT_OPERATORS = FOLDER / "without_operators.py"
PLUGIN = ROOT / "examples" / "lerobot_policy_gipo"
INPUTS = [ROOT / "pyproject.toml", ROOT / "constraints.txt", REQUIREMENTS, WITHOUT_OPERATORS, PLUGIN / "pyproject.toml"]
TORCH = "2.13.0"
OURS = ["-e", ".[train,export,so101]", f"torch=={TORCH}", "pytest", "pytest-timeout"]


def install(python: Path, environment: Path) -> Path:
    """The interpreter of an environment with both packages, made anew where what it is made from has changed."""
    stamp, own = environment / ".installed", environment / "bin" / "python"
    made_of = hashlib.sha256(b"".join(each.read_bytes() for each in INPUTS)).hexdigest()
    if stamp.exists() and stamp.read_text() == made_of:
        return own
    print(f"installing LeRobot and this package into {environment} …", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", environment], check=True)
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, "-c", "constraints.txt", *OURS], cwd=ROOT, check=True)
    subprocess.run([*pip, "--no-deps", "-r", REQUIREMENTS, "-e", PLUGIN], cwd=ROOT, check=True)
    complete_torchvision(own)
    stamp.write_text(made_of)
    return own


def complete_torchvision(own: Path) -> None:
    """Have an environment do without torchvision's operators where they are not built for the torch that was found.

    The registry's torch, for which they are, brings 4 GB of CUDA's libraries.

    Raises:
        CalledProcessError: when it cannot be imported then either.
    """
    asked = [own, "-c", "import torchvision"]
    if subprocess.run(asked, stderr=subprocess.DEVNULL).returncode == 0:
        return
    print("torchvision is built for another torch than the one here: its operators are left out", flush=True)
    where = subprocess.check_output([own, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    folder = Path(where.strip())
    shutil.copy(WITHOUT_OPERATORS, folder / "torchvision_without_operators.py")
    (folder / "torchvision_without_operators.pth").write_text("import torchvision_without_operators\n")
    subprocess.run(asked, check=True)


def run_tests(python: Path) -> bool:
    """Whether all tests of `tests/lerobot` pass."""
    command = [python, "-m", "pytest", "-m", "not campaign", "-p", "no:cacheprovider", "-rs", FOLDER]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0


def main() -> int:
    """Whether everything that could be tested here did well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environments are made")
    parser.add_argument("--python", nargs="+", required=True, metavar="VERSION", help="3.12 takes 0.6.1, 3.11 0.4.4")
    parser.add_argument("--no-tests", action="store_true", help="make the environments alone")
    options = parser.parse_args()
    outcomes: dict[str, str] = {}
    for version in options.python:
        python = interpreter(version)
        if python is None:
            outcomes[version] = "this Python is not installed here"
        else:
            own = install(python, options.folder.resolve() / version)
            outcomes[version] = "ok" if options.no_tests or run_tests(own) else "FAILED"
    print("\n".join(f"LeRobot on Python {version}: {outcome}" for version, outcome in outcomes.items()))
    return not ("ok" in outcomes.values() and "FAILED" not in outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
