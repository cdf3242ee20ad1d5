"""LeRobot's own ACT, with random weights, as the mean of a policy of ours."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors

from gipo.vla.lerobot import LeRobotNetworks, LeRobotPolicy
from gipo.vla.observations import VLASpaces, encode_instructions

SIZE, STATE, STEPS = 64, 4, 3
SPACES = VLASpaces((3, SIZE, SIZE), STATE, (-1.0, -2.0), (1.0, 2.0), STEPS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As LeRobot saves what it trained on a GPU."""
    folder = tmp_path_factory.mktemp("act")
    config = ACTConfig(
        input_features={
            "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)),
            "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        chunk_size=5, n_action_steps=5, dim_model=32, n_heads=2, dim_feedforward=64, n_encoder_layers=1,
        n_vae_encoder_layers=1, pretrained_backbone_weights=None, device="cpu",
    )  # fmt: skip
    sizes = {"observation.images.top": (3, 1, 1), "observation.state": (STATE,), "action": (2,)}
    stats = {name: {"mean": torch.zeros(size), "std": torch.full(size, 0.5)} for name, size in sizes.items()}
    torch.manual_seed(0)
    for each in (ACTPolicy(config), *make_pre_post_processors(config, dataset_stats=stats)):
        each.save_pretrained(folder)
    for path in (folder / "config.json", folder / "policy_preprocessor.json"):
        path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    return folder


def test_an_act_learns_wherever_it_was_trained(saved: Path) -> None:
    policy = LeRobotPolicy(SPACES, lambda *sizes: LeRobotNetworks(*sizes, str(saved), "top"))
    seen = {
        "image": torch.randint(0, 256, (2, *SPACES.image), dtype=torch.uint8),
        "state": torch.randn(2, STATE),
        "instruction": encode_instructions(["push the block", "lift the block"]),
    }
    params = policy.params(seen)
    assert params.shape == (2, *SPACES.decision, 2)
    policy.log_prob(params, policy.sample(params, policy.noise((2,))).detach()).sum().backward()
    moved = {name for name, value in policy.named_parameters() if value.grad is not None and value.grad.any()}
    assert any("backbone" in name for name in moved)
    assert any("action_head" in name for name in moved)
    elsewhere = {name: value if name == "instruction" else value.to("meta") for name, value in seen.items()}
    assert policy.to("meta").params(elsewhere).device.type == "meta"
