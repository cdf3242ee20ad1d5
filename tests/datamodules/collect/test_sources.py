"""Which source of transitions is started, and with what."""

from typing import Any

import pytest

from datamodules.collect import sources
from datamodules.collect.rollouts import Collection
from datamodules.envs.simulation import Shortened, Simulation
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions, RayOptions

TASK, POLICY = simulation("Pendulum-v1"), object()
SHORT = Shortened(TASK, 9)


@pytest.mark.parametrize(
    ("name", "options", "seed", "task"),
    [
        ("InProcessRollouts", {"workers": 0}, 40, TASK),
        ("WorkerRollouts", {"workers": 2}, 49, TASK),  # the iteration's
        ("RayRollouts", {"workers": 2, "backend": "ray", "ray": RayOptions(max_staleness=2)}, 40, TASK),
        ("InProcessRollouts", {"max_steps": 9}, 40, SHORT),
    ],
)
def test_the_options_choose_the_source(
    name: str, options: dict[str, Any], seed: int, task: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = CollectorOptions(num_envs=3, asynchronous=True, worker_timeout=7.0, **options)
    monkeypatch.setattr(sources, name, lambda *given: given)
    source = sources.RolloutSource(collector, TASK)
    source.load_state_dict({"frames": 24, "next_episode": 5, "episodes": {"finished": []}, "generators": {}})
    source.start(12, POLICY, True, 40, 9)  # type: ignore[arg-type]
    what = Collection(task, 3, 12, POLICY, True, seed, first_episode=5)  # type: ignore[arg-type]
    assert source.rollouts == ((what, collector) if collector.workers else (what,))  # type: ignore[comparison-overlap]
