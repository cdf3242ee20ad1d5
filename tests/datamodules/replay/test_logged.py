"""Sampling of logged transitions goes on exactly from its state, and only on the same logs."""

from pathlib import Path

import pytest
import torch
from torchrl.data.replay_buffers import SamplerWithoutReplacement, StalenessAwareSampler

from datamodules.advantages import GAE
from datamodules.ingest import IngestOptions
from datamodules.replay.logged import LogReplay
from datamodules.replay.logs import Logs
from datamodules.replay.ring import LEARNER_KEYS
from datamodules.replay.values import value_frames
from gipo.common.errors import UserError
from tests.offline import Robot, make_policy


def replay(robot: Robot, *sources: Path, seed: int = 5) -> LogReplay:
    logs = Logs([str(path) for path in sources or robot.logs], IngestOptions(policies=robot.folder, workers=1), None, 0)
    return LogReplay(logs.frames(make_policy(), True), GAE(), seed=seed)


def test_it_goes_on_from_its_state(robot: Robot) -> None:
    one = replay(robot)
    one.refresh(make_policy())
    one.sample(2, 8, version=7)
    state = {
        key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in one.state_dict().items()
    }
    expected = [one.sample(2, 8, version=7) for _ in range(2)]
    two = replay(robot, seed=6)
    two.load_state_dict(state)
    for batch in expected:
        again = two.sample(2, 8, version=7)
        assert set(again.keys()) == set(LEARNER_KEYS)
        assert all(torch.equal(batch[key], again[key]) for key in LEARNER_KEYS)
    assert not torch.equal(expected[0]["observation"], expected[1]["observation"])


def test_what_lies_in_any_order_has_the_advantages_of_its_own_rewards(robot: Robot) -> None:
    frames, policy = replay(robot, robot.logs[0]).frames, make_policy()
    mixed = frames[torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))]
    mixed = mixed[mixed["step"].argsort(stable=True)]  # of many episodes, each in the order of its steps
    one = LogReplay(mixed, GAE(), reward_scale=0.5)
    one.refresh(policy)
    order, expected = value_frames(mixed, policy, GAE(), 0.5)
    assert order.tolist() != sorted(order.tolist())
    found = one.state_dict()
    torch.testing.assert_close(found["advantage"][order], expected.advantage)
    torch.testing.assert_close(found["value_target"][order], expected.target)


def test_a_state_of_other_logs_is_refused(robot: Robot) -> None:
    state = replay(robot).state_dict()
    with pytest.raises(UserError, match="trained on 180 logged transitions, there are 90"):
        replay(robot, robot.logs[0]).load_state_dict(state)


def test_a_sampler_without_replacement_begins_anew_when_it_is_through(robot: Robot) -> None:
    one = LogReplay(replay(robot, robot.logs[0]).frames, GAE(), SamplerWithoutReplacement())
    drawn = torch.cat([one.sample(5, 8, 7)["observation"].flatten(0, 1) for _ in range(9)])  # 360 of 90
    for whole in drawn.split(90):
        assert len(whole.unique(dim=0)) == 90


@pytest.mark.parametrize("version", [0, 6, 7, 9])
def test_logs_of_a_later_version_than_the_learners_count_as_fresh(version: int, robot: Robot) -> None:
    frames = replay(robot).frames.clone()
    frames["policy_version"][:90] -= 3  # 4 of the first log, 7 of the second
    one = LogReplay(frames, GAE(), StalenessAwareSampler())
    share = (one.sample(40, 100, version)["policy_version"] == 4).float().mean()
    newest = max(version, 7)
    old, new = 1 / (newest - 4 + 1), 1 / (newest - 7 + 1)
    assert abs(float(share) - old / (old + new)) < 0.03


def test_every_learner_prefers_fresh_steps_by_a_seed_of_its_own_and_a_resumed_one_goes_on(robot: Robot) -> None:
    frames = replay(robot).frames

    def learner(seed: int) -> tuple[LogReplay, torch.Tensor]:
        torch.manual_seed(0)  # as in every learner of a run
        one = LogReplay(frames, GAE(), StalenessAwareSampler(), seed=seed)
        return one, one.sample(1, 60, 7)["observation"]

    (one, drawn), (_, same), (other, another) = map(learner, (1, 1, 2))
    assert torch.equal(drawn, same)
    assert not torch.equal(drawn, another)
    other.load_state_dict(one.state_dict())
    before = torch.get_rng_state()
    assert torch.equal(one.sample(1, 60, 7)["observation"], other.sample(1, 60, 7)["observation"])
    assert torch.equal(before, torch.get_rng_state())


def test_what_was_never_valued_is_not_a_number(robot: Robot) -> None:
    fresh = replay(robot)
    assert fresh.sample(1, 8, version=7)["advantage"].isnan().all()
    fresh.refresh(make_policy())
    assert fresh.state_dict()["advantage"].isfinite().all()
    assert len(fresh) == 180
