"""What is handed out: `python -m tests.dist dist` looks into the sdist and the wheel of a folder, and runs the wheel.

The wheel is installed in an environment of its own and run outside of the repository, as on a robot: without torch.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.docstrings import PACKAGES, ROOT

ARTIFACT = ROOT / "tests" / "data" / "written_by_0.1" / "policy.onnx"
COMMANDS = [
    ["gipo", "--help"],
    ["gipo-robot", "--help"],
    ["gipo-robot", "info", "--help"],
    ["gipo-deploy", "--help"],
    ["gipo-deploy", "check", str(ARTIFACT)],
    ["gipo-deploy", "info", str(ARTIFACT)],
]


def tracked() -> set[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines())


def check_sdist(path: Path) -> None:
    """The repository, all of it that is tracked."""
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked() - files <= {".gitignore"}, sorted(tracked() - files)


def check_wheel(path: Path) -> None:
    """The four packages with what they read, and nothing beside them."""
    files = {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name}
    shipped = {name for name in tracked() if name.partition("/")[0] in PACKAGES}
    assert files == shipped, sorted(files ^ shipped)


def run_wheel(wheel: Path, folder: Path) -> None:
    """Every program answers, an artifact holds, and torch is not there."""
    environment, elsewhere = folder / "venv", folder / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    programs = environment / "bin"
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheel.resolve()], check=True)
    for name, *options in COMMANDS:
        done = subprocess.run([programs / name, *options], cwd=elsewhere, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), f"{name} {options}: {done.stdout}{done.stderr}"
    code = "import importlib.util as u, gipo; print(gipo.__file__, u.find_spec('torch'))"
    done = subprocess.run([programs / "python", "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True)
    file, torch = done.stdout.split()
    assert Path(file).is_relative_to(environment), file
    assert torch == "None"


def main(folder: Path) -> None:
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    check_sdist(sdist)
    check_wheel(wheel)
    with tempfile.TemporaryDirectory() as temporary:
        run_wheel(wheel, Path(temporary))
    print(f"{sdist.name} and {wheel.name} hold what they should; the wheel runs in an environment of its own")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
