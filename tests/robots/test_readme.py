"""The robot of the README drives through the real command line."""

import json
import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robots import cli, prompt
from robots.log import read_log

ROOT = Path(__file__).parents[2]


def code() -> str:
    """The block that begins with `# my_arm.py`."""
    for name in ("README.md", "README_ROBOTS.md"):
        text = (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).exists() else ""
        found = re.search(r"```python\n(# my_arm\.py\n.*?)```", text, re.DOTALL)
        if found:
            return found[1]
    raise AssertionError("no README shows my_arm.py")


class TwoJoints:
    """A policy for the README's arm: stands in for an artifact, which another test covers."""

    policy_id = "cd" * 32

    def __init__(self, spec: Any):
        keys = ("observation_names", "observation_units", "action_names", "action_units", "action_low", "action_high")
        values = {key: getattr(spec, key) for key in keys}
        self.manifest = types.SimpleNamespace(
            vision=None,
            **values,
            control_rate_hz=50.0,
            policy_version=1,
            task="wave",
            to_json=lambda: json.dumps({"task": "wave"}),
        )

    def act(self, observation: np.ndarray, rng: np.random.Generator, deterministic: bool = False) -> Any:
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        return types.SimpleNamespace(action=action, latent=action, log_prob=np.zeros(2, np.float32), params=None)


def test_add_your_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(code().splitlines()) <= 60, "one screen"
    (tmp_path / "my_arm.py").write_text(code())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    from my_arm import MyArm  # type: ignore[import-not-found]

    monkeypatch.setattr("deploy.policy.OnnxPolicy.load", lambda *_, **__: TwoJoints(MyArm.spec))
    command = ["run", "--robot", "my_arm:MyArm", "--policy", "policy.onnx", "--log", "logs", "--episodes", "2"]
    assert (
        cli.main([*command, "--steps", "40", "--set", "port=/dev/ttyUSB1", "--deadline", "50", "--max-age", "60"]) == 0
    )
    (path,) = (tmp_path / "logs").glob("*my-arm*.mcap")
    log = read_log(path)
    assert [len(episode) for episode in log.episodes] == [40, 40]
    assert log.header.robot["action_units"] == ["rad/s", "rad/s"]
    sent = log.episodes[0]["sent_action"]
    assert (np.abs(np.diff(sent, axis=0)) <= 5.0 / 50 + 1e-9).all()
    assert "2" in capsys.readouterr().out
    assert prompt.ask_reset("nobody is there", lambda: False) is False
