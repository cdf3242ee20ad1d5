"""LeRobot policies: against a stand-in with lerobot's interface."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gipo.common.errors import UserError
from gipo.policies import Policy, build
from gipo.vla.lerobot import LeRobotNetworks, LeRobotPolicy
from gipo.vla.observations import encode_instructions
from gipo.vla.policies import VLAGaussianPolicy
from tests.gipo.vla import fake_lerobot
from tests.gipo.vla.builders import SPACES, observations

WORDS = ["push the block", "lift the block"]  # of `observations`


@pytest.fixture(autouse=True)
def lerobot(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_lerobot.install(monkeypatch)


def made(folder: Path, camera: str = "top") -> Policy:
    network = lambda spaces, outputs: LeRobotNetworks(spaces, outputs, str(folder), camera)  # noqa: E731
    return LeRobotPolicy(SPACES, network)


def test_the_mean_is_what_the_policy_predicts(tmp_path: Path) -> None:
    folder = fake_lerobot.save_policy(tmp_path / "act", scale=0.5)
    policy, seen = made(folder), observations(2)
    # by hand: the processors around the regression, the first 3 of its 5 steps
    weights = load_file(folder / "model.safetensors")
    task = torch.tensor([[float(len("push the block"))], [float(len("lift the block"))]])
    bright = (seen["image"].float() / 255).mean((1, 2, 3)).unsqueeze(-1)
    inputs = torch.cat([bright, seen["state"] / 0.5, task], -1)
    chunk = 0.5 * (inputs @ weights["model.weight"].T + weights["model.bias"]).unflatten(-1, (5, 2))[:, :3]
    low, high = torch.tensor(SPACES.action_low), torch.tensor(SPACES.action_high)
    found = policy.to_env(policy.mode(policy.params(seen)))
    torch.testing.assert_close(found, chunk.clamp(low, high).detach())


def test_a_policy_that_would_bound_what_it_predicts_is_refused(tmp_path: Path) -> None:
    folder = fake_lerobot.save_policy(tmp_path / "act")
    cases: list[dict[str, bool]] = [{}, {"squash": False, "normalise": False}]
    for options in cases:
        with pytest.raises(
            UserError, match="LeRobotNetworks regresses actions, which VLAGaussianPolicy bounds: its pol"
        ):
            VLAGaussianPolicy(
                SPACES, network=lambda spaces, outputs: LeRobotNetworks(spaces, outputs, str(folder), "top"), **options
            )


def test_a_checkpoint_is_refused_beside_another_policy_or_other_processors(tmp_path: Path) -> None:
    """The weights are the checkpoint's, and what its processors make of them is the folder's."""
    folder = fake_lerobot.save_policy(tmp_path / "act", scale=0.5)
    policy = made(folder)
    with torch.no_grad():
        policy.network.encoder.wrapper.policy.policy.model.weight += 0.1  # it has learned
    learned, seen = policy.state_dict(), observations(2)
    again = made(folder)
    again.load_state_dict(learned)
    torch.testing.assert_close(again.params(seen), policy.params(seen), atol=0, rtol=0)
    older = {name: value for name, value in learned.items() if not name.endswith("as_it_came")}
    made(folder).load_state_dict(older)
    fake_lerobot.save_policy(folder, scale=0.8)
    other = made(folder)
    with pytest.raises(RuntimeError, match="with its processors, is not the one that this was trained from"):
        other.load_state_dict(learned)


def test_it_is_shown_each_of_several_cameras_by_its_name(tmp_path: Path) -> None:
    folder = fake_lerobot.save_policy(tmp_path / "act", cameras=("wrist", "top"))
    spaces = replace(SPACES, image=(6, *SPACES.image[1:]), cameras=("top", "wrist"))
    policy = LeRobotPolicy(spaces, lambda spaces, outputs: LeRobotNetworks(spaces, outputs, str(folder)))
    first, second = observations(2), observations(2)
    second["image"] = 255 - second["image"]
    both = first | {"image": torch.cat([first["image"], second["image"]], 1)}
    # of the top camera it makes twice as much as of the wrist's
    mixed = (2 * first["image"].float() + second["image"].float()) / 255
    alone = made(fake_lerobot.save_policy(tmp_path / "one")).network.encoder.wrapper.policy
    batch = {"observation.images.image": mixed, "observation.state": first["state"], "task": WORDS}
    low, high = torch.tensor(SPACES.action_low), torch.tensor(SPACES.action_high)
    found = policy.to_env(policy.mode(policy.params(both)))
    torch.testing.assert_close(found, alone.predict_action_chunk(batch).clamp(low, high).detach())


def test_it_is_shown_cameras_of_different_sizes_each_at_its_own(tmp_path: Path) -> None:
    folder = fake_lerobot.save_policy(tmp_path / "act", cameras=("wrist", "top"))
    spaces = replace(SPACES, image=((3, 8, 8), (3, 6, 4)), cameras=("top", "wrist"))
    with pytest.raises(UserError, match="does not take these observations"):  # it adds up images of one size
        LeRobotPolicy(spaces, lambda spaces, outputs: LeRobotNetworks(spaces, outputs, str(folder)))
    seen: dict[str, torch.Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:
        kept = fake_lerobot.ACTPolicy.predict_action_chunk.__wrapped__

        def looked(self: fake_lerobot.ACTPolicy, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            seen.update(batch)
            images = {name: batch[name].mean((2, 3), keepdim=True) for name in batch if fake_lerobot.CAMERA in name}
            chunk: torch.Tensor = kept(self, batch | images)
            return chunk

        patch.setattr(fake_lerobot.ACTPolicy, "predict_action_chunk", looked)
        LeRobotPolicy(spaces, lambda spaces, outputs: LeRobotNetworks(spaces, outputs, str(folder)))
    shapes = {name: tuple(seen[fake_lerobot.CAMERA + name].shape) for name in spaces.cameras}
    assert shapes == {"top": (1, 3, 8, 8), "wrist": (1, 3, 6, 4)}


def test_spreads_start_between_floor_and_ceiling_and_learn(tmp_path: Path) -> None:
    policy, seen = made(fake_lerobot.save_policy(tmp_path / "act")), observations(4)
    params = policy.params(seen)
    torch.testing.assert_close(params[..., 1].exp(), torch.full((4, 3, 2), 0.1))
    policy.log_prob(params, policy.sample(params, policy.noise((4,))).detach()).sum().backward()
    moved = [parameter.grad for parameter in policy.actor_parameters()]
    assert len(moved) == 3  # weight and bias of the regression, and the spreads
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in moved)
    assert policy.value(seen).shape == (4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert policy.network.critic(policy.features(seen)).dtype == torch.float32


def test_it_does_not_drop_out_while_it_learns(tmp_path: Path) -> None:
    policy, seen = made(fake_lerobot.save_policy(tmp_path / "act", dropout=0.5)), observations(4)
    assert torch.equal(policy.train().params(seen), policy.eval().params(seen))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_is_where_the_rest_of_the_policy_is_wherever_it_was_saved(device: str, tmp_path: Path) -> None:
    """LeRobot's processors bring what they are given to the device that they were saved for."""
    policy, seen = made(fake_lerobot.save_policy(tmp_path / "act", device=device)), observations(2)
    assert policy.params(seen).device.type == "cpu"
    policy, seen = policy.to("meta"), {name: seen[name].to("meta") for name in ("image", "state")}
    words = encode_instructions(WORDS)  # are read, which nothing on the device of shapes can be
    assert policy.params(seen | {"instruction": words}).device.type == "meta"


def test_a_description_rebuilds_it(tmp_path: Path) -> None:
    policy = made(fake_lerobot.save_policy(tmp_path / "act"))
    again = build(policy.description())
    with torch.no_grad():
        policy.actor_parameters()[0].add_(1)
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again.params(observations(3)), policy.params(observations(3)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise": 0.1}, "another chunk each time"),
        ({"frozen": True}, "no gradient reaches"),
        ({"action_size": 3}, "gives other actions"),
        ({"chunk_size": 2}, "gives other actions"),
        ({"type": "diffusion"}, "cannot load"),
    ],
)
def test_an_unsuitable_policy_is_refused(options: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        made(fake_lerobot.save_policy(tmp_path / "act", **options))


def test_an_unknown_camera_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not take these observations"):
        made(fake_lerobot.save_policy(tmp_path / "act"), camera="wrist")


def test_without_lerobot_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lerobot.configs.policies", None)
    with pytest.raises(UserError, match="pip install lerobot"):
        made(tmp_path)
