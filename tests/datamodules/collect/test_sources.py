"""Which source of transitions is started, and with what."""

import inspect
from typing import Any

import pytest

from datamodules.collect import sources
from datamodules.envs.simulation import Shortened
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions, RayOptions

TASK, POLICY, RAY = simulation("Pendulum-v1"), object(), RayOptions(max_staleness=2)
SHARED = {"task": TASK, "num_envs": 3, "frames": 12, "policy": POLICY, "store_params": True, "first_episode": 5}
MANY = {"workers": 2, "asynchronous": True, "timeout": 7.0}
SHORT = Shortened(TASK, 9)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("InProcessRollouts", {"workers": 0}, {"seed": 40}),
        ("WorkerRollouts", {"workers": 2}, {"seed": 49, **MANY}),
        ("RayRollouts", {"workers": 2, "backend": "ray"}, {"seed": 40, "options": RAY, **MANY}),
        ("InProcessRollouts", {"max_steps": 9}, {"seed": 40, "task": SHORT}),
    ],
)
def test_the_options_choose_the_source(
    name: str, options: dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = inspect.signature(getattr(sources, name))
    monkeypatch.setattr(sources, name, lambda *given: signature.bind(*given).arguments)
    collector = CollectorOptions(num_envs=3, asynchronous=True, worker_timeout=7.0, ray=RAY, **options)
    started: Any = sources.start(collector, TASK, 12, POLICY, True, 40, 5, 9)  # type: ignore[arg-type]
    assert started == SHARED | expected
