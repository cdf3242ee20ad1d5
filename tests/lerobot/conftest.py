import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lerobot.arm import Desk

# Read when LeRobot is imported: where data sets lie that are named by `user/name`, and that nobody is asked for others.
HOME = Path(tempfile.mkdtemp(prefix="lerobot-home-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ |= {"HF_LEROBOT_HOME": str(HOME), "HF_HUB_OFFLINE": "1", "HF_HOME": str(HOME / "hub")}


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    """No answer of a servo is missed because this machine is busy."""
    if find_spec("scservo_sdk") is None:  # LeRobot is not there either
        yield
        return
    from tests.lerobot.patience import waits_for_this_machine

    with waits_for_this_machine():
        yield


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """LeRobot's commands log to the standard error of the test that they run in, which is closed after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`command("lerobot_edit_dataset", "--repo_id", …)`: one of LeRobot's own, in this process."""

    def run(name: str, *options: str) -> None:
        monkeypatch.setattr("sys.argv", [name, *options])
        import_module(f"lerobot.scripts.{name}").main()

    return run


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Desk"]:
    """An arm on its port, and its files in the working folder."""
    from tests.lerobot.arm import Desk

    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    yield desk
    desk.port.unplug()


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that may drive the arm."""
    from tests.lerobot.arm import make_artifact

    return make_artifact(tmp_path_factory.mktemp("policy") / "policy.onnx")
