"""The TorchRL example runs as shown, and learns from data older than its policy."""

import importlib.util
import math
import re
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "examples" / "torchrl_gipo.py"
SMALL = ["--iterations", "3", "--frames", "128", "--buffer", "384", "--batch", "64", "--updates", "4"]


def test_it_runs_and_reuses_old_data(capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("torchrl_gipo", PATH)
    assert spec
    assert spec.loader
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    returns = example.main(example.parser().parse_args(SMALL))
    assert len(returns) == 3
    assert all(math.isfinite(value) for value in returns)
    weights = [float(value) for value in re.findall(r"trust weight ([\d.]+)", capsys.readouterr().out)]
    # an iteration's updates part the policy from its data, and the buffer keeps what earlier policies did
    assert len(weights) == 3
    assert all(0 < weight < 1 for weight in weights[1:])
