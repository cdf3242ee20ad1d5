"""LeRobot policies that regress a chunk of actions (ACT and its like), post-trained as the mean of a Gaussian."""

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import NonTensorStack, TensorDict
from torch import Tensor, nn
from torchrl.modules import MLP
from torchrl.modules.vla import LeRobotPolicyWrapper

from gipo.common.errors import UserError
from gipo.networks import ActorCritic, as_head, refuse_other
from gipo.vla.observations import VLASpaces, decode_instructions, flattened
from gipo.vla.policies import VLAGaussianPolicy, VLANetworkFactory
from gipo.vla.pretrained import located

IMAGES = "observation.images."  # what LeRobot puts before the name of a camera


class LeRobotNetworks(ActorCritic):
    """A LeRobot policy behind TorchRL's `LeRobotPolicyWrapper`, with a spread of its own for each action, and a critic.

    The policy must predict the same chunk for the same observation: a flow or a diffusion that draws its own noise has
    no density to take a ratio of.

    Args:
        spaces: what the policy is built for.
        outputs: 2, mean and spread.
        pretrained: folder or hub id of the policy, with its processors; read by lerobot, as safetensors.
        camera: which of the policy's cameras the image is; of several images, the cameras are those of their names.
        critic_width: width of the critic's hidden layer.
    """

    exportable, large, rows_at_once = False, True, 64
    regresses = True  # its output is the mean itself, in units of half the bounds' range

    def __init__(
        self, spaces: VLASpaces, outputs: int, pretrained: str, camera: str = "image", critic_width: int = 256
    ):
        refuse_other(self, spaces, VLASpaces)
        pretrained = located(str(pretrained))
        super().__init__(pretrained=pretrained, camera=camera, critic_width=critic_width)
        if outputs != 2:
            raise UserError("LeRobotNetworks regresses actions: its policy is gipo.vla.lerobot.LeRobotPolicy")
        cameras = spaces.cameras if len(spaces.cameras) > 1 else (camera,)
        self.encoder = _LeRobotEncoder(load(pretrained, spaces, cameras), spaces)
        self.actor = _Spread(spaces)
        size = spaces.chunk * len(spaces.action_low) + spaces.state_size
        self.critic = critic = MLP(in_features=size, out_features=spaces.chunk, num_cells=[critic_width])
        critic[-1] = as_head(critic[-1])
        self.encoder.refuse_unsuitable(pretrained)


class LeRobotPolicy(VLAGaussianPolicy):
    """A chunk of actions around the one that a LeRobot policy predicts, clipped into the bounds.

    Args:
        spaces: what the policy is built for.
        network: the body, such as `LeRobotNetworks`; it standardises its inputs itself.
        std_min: floor of the standard deviation, of half the range between the bounds.
        std_max: ceiling of the standard deviation; it starts at the geometric mean of both.
    """

    squashes_mean = False

    def __init__(self, spaces: VLASpaces, network: VLANetworkFactory, std_min: float = 0.02, std_max: float = 0.5):
        options = {"squash": False, "std_min": std_min, "std_max": std_max, "normalise": False}
        super().__init__(spaces, network=network, **options)

    def config(self) -> dict[str, Any]:
        """Constructor arguments beside `spaces` and `network`."""
        return {"std_min": self.std_min, "std_max": self.std_max}

    def _constrain(self, outputs: Tensor) -> Tensor:
        # The mean stays what was predicted; the anchor holds it there, and `to_env` clips.
        return torch.stack((outputs[..., 0], super()._constrain(outputs)[..., 1]), -1)


def load(pretrained: str, spaces: VLASpaces, cameras: tuple[str, ...]) -> "_Regressor":
    """A LeRobot policy with these cameras between its processors, of whose chunks the first steps are taken.

    Raises:
        UserError: lerobot is not installed, or cannot read it.
    """
    try:
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors
        from lerobot.processor import DeviceProcessorStep
    except ImportError as error:
        raise UserError(f"a LeRobot policy needs lerobot: pip install lerobot ({error})") from error
    try:
        config = PreTrainedConfig.from_pretrained(pretrained)
        config.device = "cpu"  # it is brought elsewhere with the rest of the network; where it was saved need not be
        policy = get_policy_class(config.type).from_pretrained(pretrained, config=config)
        read_here = {"device_processor": {"device": "cpu"}}
        before, after = make_pre_post_processors(config, pretrained_path=pretrained, preprocessor_overrides=read_here)
        for each in (before, after):  # and what they are given stays where it is
            each.steps = [step for step in each.steps if not isinstance(step, DeviceProcessorStep)]
    except Exception as error:  # lerobot raises anything
        raise UserError(f"lerobot cannot load a policy from {pretrained!r}: {type(error).__name__}: {error}") from error
    return _Regressor(policy, before, after, spaces, cameras)


class _Regressor(nn.Module):
    """A batch of LeRobot's, with one image of all `cameras`, → chunks in environment units, with a gradient."""

    def __init__(self, policy: nn.Module, before: Any, after: Any, spaces: VLASpaces, cameras: tuple[str, ...]):
        super().__init__()
        self.policy, self._before, self._after, self._spaces = policy, before, after, spaces
        self.cameras = cameras
        # LeRobot predicts without a gradient; the function it decorates has one.
        predict = getattr(type(policy), "predict_action_chunk")  # noqa: B009 - a method no base class declares
        self._predict = getattr(predict, "__wrapped__", predict)

    def predict_action_chunk(self, batch: dict[str, Any]) -> Tensor:
        """The first steps of the policy's own chunk, [B, steps, D]."""
        seen = dict(batch)
        images = self._spaces.apart(seen.pop(f"{IMAGES}image"))  # the wrapper knows of one camera
        seen |= {f"{IMAGES}{name}": image for name, image in zip(self.cameras, images, strict=True)}
        chunk: Tensor = self._after(self._predict(self.policy, self._before(seen)))
        return chunk[:, : self._spaces.chunk]


class _LeRobotEncoder(nn.Module):
    """Observations → [..., H·D + S]: the predicted chunk in units of half the bounds' range, and the state."""

    low: Tensor
    high: Tensor
    as_it_came: Tensor  # what the policy of the folder, between its processors, makes of one observation

    def __init__(self, regressor: _Regressor, spaces: VLASpaces):
        super().__init__()
        self.spaces = spaces
        self.wrapper = LeRobotPolicyWrapper(regressor, action_dim=len(spaces.action_low), chunk_size=spaces.chunk)
        self.register_buffer("low", torch.tensor(spaces.action_low), persistent=False)
        self.register_buffer("high", torch.tensor(spaces.action_high), persistent=False)

    def train(self, mode: bool = True) -> "_LeRobotEncoder":
        """The policy never drops out: its log-probs must be those of the policy that acted."""
        super().train(mode)
        self.wrapper.eval()
        return self

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        batch = observation["state"].shape[:-1]
        image, state, instruction = flattened(observation)
        seen = TensorDict(
            {
                "observation": {"image": image.float() / 255, "state": state},
                "language_instruction": NonTensorStack(*decode_instructions(instruction)),
            },
            batch_size=[len(state)],
        )
        action = self.wrapper(seen)["vla_action", "chunk"].float().to(state.device)
        latent = 2 * (action - self.low) / (self.high - self.low) - 1
        return torch.cat([latent.flatten(1), state], -1).unflatten(0, batch)

    def refuse_unsuitable(self, pretrained: str) -> None:
        """Refuse a policy that draws noise of its own, or that no gradient can reach.

        Raises:
            UserError: saying which.
        """
        self.eval()
        seen = self.spaces.blank()
        seen["state"] = torch.ones_like(seen["state"])
        try:
            first, again = (self(seen) for _ in range(2))
        except (ValueError, KeyError, RuntimeError) as error:
            raise UserError(
                f"{pretrained!r} does not take these observations, or gives other actions: {error}"
            ) from error
        if not torch.equal(first, again):
            raise UserError(f"{pretrained!r} predicts another chunk each time; only policies that regress have a ratio")
        if not first.requires_grad:
            raise UserError(f"no gradient reaches the weights of {pretrained!r} through its predict_action_chunk")
        self.register_buffer("as_it_came", first.detach().clone())
        self.register_load_state_dict_pre_hook(_refuse_another)


def _refuse_another(module: "_LeRobotEncoder", state: dict[str, Any], prefix: str, *others: Any) -> None:
    """Refuse weights that were learned from another policy, or between other processors, than the folder has now."""
    *_, errors = others  # of which torch makes the message that refuses the weights
    found = state.setdefault(f"{prefix}as_it_came", module.as_it_came)  # older checkpoints do not say
    now = module.as_it_came
    if found.shape != now.shape or not torch.allclose(found.to(now), now, rtol=1e-3, atol=1e-3, equal_nan=True):
        errors.append(
            "the LeRobot policy in its folder, with its processors, is not the one that this was trained from"
        )


class _Spread(nn.Module):
    """Features → [..., H·D·2]: the predicted means, and a spread for each that does not depend on the observation."""

    def __init__(self, spaces: VLASpaces):
        super().__init__()
        # −1 is half-way between the logarithms of floor and ceiling.
        self.raw = nn.Parameter(torch.full((spaces.chunk * len(spaces.action_low),), -1.0))

    def forward(self, features: Tensor) -> Tensor:
        mean = features[..., : len(self.raw)]
        return torch.stack((mean, self.raw.expand_as(mean)), -1).flatten(-2)
