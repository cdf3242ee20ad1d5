"""A user's class that is at fault is named with its file and line, wherever the error was raised."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gipo.cli import main
from gipo.common import faults
from tests.needs import needs_torch

MODULE = """from dataclasses import dataclass
import torch
from gipo.objectives import Objective, Terms
from gipo.policy import Policy

@dataclass(frozen=True)
class OtherSignature(Objective):
    def __call__(self, x):
        return x

@dataclass(frozen=True)
class RaisesInCall(Objective):
    def __call__(self, log_ratio, advantage):
        return {}["joint"]

@dataclass(frozen=True)
class RaisesInInit(Objective):
    def __post_init__(self):
        raise RuntimeError("no such margin")
    def __call__(self, log_ratio, advantage): ...

@dataclass(frozen=True)
class ReturnsNothing(Objective):
    def __call__(self, log_ratio, advantage): ...

@dataclass(frozen=True)
class OtherShape(Objective):
    def __call__(self, log_ratio, advantage):
        return Terms(torch.zeros(3), torch.zeros(3), torch.zeros(3))

class HalfAPolicy(Policy):
    def __init__(self, spaces):
        super().__init__(spaces, 2, None, True)
"""
FILES = {
    "theirs_of_test.py": MODULE,
    "mistyped_of_test.py": "x = 1\ndef f(:\n",
    "ends_of_test.py": "import sys\nsys.exit(3)\n",
}
AT_FAULT = {
    "objective=theirs_of_test.OtherSignature": "theirs_of_test.OtherSignature ({here}/theirs_of_test.py:6): "
    "OtherSignature.__call__() takes 2 positional arguments but 3 were given",
    "objective=theirs_of_test.RaisesInCall": "KeyError in __call__ ({here}/theirs_of_test.py:14): 'joint'",
    "objective=theirs_of_test.RaisesInInit": "RuntimeError in __post_init__ ({here}/theirs_of_test.py:19): "
    "no such margin",
    "objective=theirs_of_test.ReturnsNothing": "theirs_of_test.ReturnsNothing must return Terms whose three tensors "
    "have the shape [32, 2] of log_ratio",
    "objective=theirs_of_test.OtherShape": "theirs_of_test.OtherShape must return Terms whose three tensors have the "
    "shape [32, 2] of log_ratio",
    "policy=theirs_of_test.HalfAPolicy": "theirs_of_test.HalfAPolicy ({here}/theirs_of_test.py:31): "
    "Can't instantiate abstract class HalfAPolicy with",
    "objective=mistyped_of_test.X": "SyntaxError ({here}/mistyped_of_test.py:2): ",
    "objective=ends_of_test.X": "SystemExit in <module> ({here}/ends_of_test.py:2): 3",
}


@needs_torch
@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize("option", AT_FAULT)
def test_it_is_named_in_one_line(
    option: str,
    tiny: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        sys.modules.pop(name.removesuffix(".py"), None)
    importlib.invalidate_caches()
    monkeypatch.chdir(tmp_path)
    policy = {"model__policy__bins": None, "model__policy__network": None, "model__policy__network__hidden": None}
    own = policy | {"model__policy": None} if option.startswith("policy") else {}
    with pytest.raises(SystemExit, match="2"):
        main([*tiny(data__task="Tiny-v0", data__total_frames=32, **own), f"--model.{option}"])
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("gipo: error: " + AT_FAULT[option].format(here=tmp_path))


def test_a_module_that_there_is_not_has_no_line_of_the_interpreter() -> None:
    with pytest.raises(ModuleNotFoundError) as found:
        importlib.import_module("no_such_module")
    error = found.value.with_traceback(found.tb.tb_next)  # without the line of this test
    assert faults.described(error) == "ModuleNotFoundError: No module named 'no_such_module'"


def test_what_pip_put_into_a_folder_of_its_own_is_no_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install --target`, as on a cluster: its parser ends `--print_config` by a SystemExit that is nobody's."""
    (tmp_path / "ends_elsewhere.py").write_text("import sys\ndef ends():\n    sys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = []
    for installed in (False, True):
        if installed:
            (tmp_path / "ends_elsewhere-1.0.dist-info").mkdir()
        with pytest.raises(SystemExit) as found:
            importlib.import_module("ends_elsewhere").ends()
        error = found.value.with_traceback(found.tb.tb_next)  # without the line of this test
        told.append(faults.of_a_users_class(error))
    assert told == [f"SystemExit in ends ({tmp_path / 'ends_elsewhere.py'}:3): 0", None]
