"""Artifacts for tests of what runs without torch: `python -m tests.artifacts FOLDER` writes them, which takes torch.

Where GIPO_TEST_ARTIFACTS names such a folder they are read from it, and a log of the simulated arm, so that the base
install is tested with them too.
"""

import importlib
import os
import sys
from pathlib import Path

import pytest

GIVEN = Path(os.environ["GIPO_TEST_ARTIFACTS"]) if "GIPO_TEST_ARTIFACTS" in os.environ else None
WRITERS = {"deploy": "tests.deploy.builders", "robots": "tests.robots.artifacts"}


def artifacts(package: str, folder: Path) -> Path:
    """Where the artifacts of a package's tests are: in the folder that is given, else written to `folder`."""
    if GIVEN:
        return GIVEN / package
    pytest.importorskip("torch", reason="artifacts are exported with torch")
    importlib.import_module(WRITERS[package]).write_artifacts(folder)
    return folder


def main(folder: Path) -> None:
    """Write the artifacts of all packages, and a log of the simulated arm beside those of `robots`."""
    from tests.robots.artifacts import write_session

    for name in WRITERS:
        (folder / name).mkdir(parents=True)
        artifacts(name, folder / name)
    write_session(folder / "robots", folder / "robots")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
