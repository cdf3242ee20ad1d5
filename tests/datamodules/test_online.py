"""Where the online data module keeps its buffer."""

from types import SimpleNamespace

import pytest
import torch

from datamodules.online import OnlineDataModule


def module(replay_device: str, root: str) -> OnlineDataModule:
    found = OnlineDataModule("Tiny-v0", replay_device=replay_device)  # type: ignore[arg-type]
    found.trainer = SimpleNamespace(  # type: ignore[assignment]
        strategy=SimpleNamespace(root_device=torch.device(root)), num_devices=1, num_nodes=1
    )
    return found


@pytest.mark.parametrize(
    ("replay_device", "root", "expected"),
    [("cpu", "cpu", "cpu"), ("cpu", "meta", "cpu"), ("learner", "cpu", "cpu"), ("learner", "meta", "meta")],
)
def test_the_buffer_is_where_it_was_asked_for(
    replay_device: str, root: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr("datamodules.online.Replay", lambda *args: made.append(args))
    module(replay_device, root).setup("fit")
    assert torch.device(made[0][-1]) == torch.device(expected)


def test_before_a_trainer_the_place_of_the_learner_is_not_known() -> None:
    found = OnlineDataModule("Tiny-v0", replay_device="learner")
    assert found._device is None
