"""The body of a small vision-language-action policy, made of the parts of TorchRL's `TinyVLA`."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchrl.modules import MLP
from torchrl.modules.vla import TinyVLA

from gipo.common.errors import UserError
from gipo.networks import ActorCritic, as_head, refuse_other
from gipo.vla.observations import VLASpaces

MAX_BYTES = 2**24 // (127 * 255)  # of an instruction: float32 counts to 2²⁴, factors to 127, bytes to 255


class TinyVLANetworks(ActorCritic):
    """TorchRL's `TinyVLA` with a critic beside its head: convolutions, a state MLP, a hashed instruction, one trunk.

    Args:
        spaces: what the policy is built for.
        outputs: parameters of each dimension of each chunk step.
        hidden: width of the encoders, the trunk and the critic.
        text_vocab: size of the table of hashed instructions, a power of two.
        text_dim: size of an instruction's embedding.
        norm: centre pixels, and standardise an image's features and what the trunk makes of all of them (layer norm).
            Without it an image of more than a few pixels, most of which are alike in all, saturates the trunk for good.
    """

    rows_at_once = 512

    def __init__(
        self,
        spaces: VLASpaces,
        outputs: int,
        hidden: int = 128,
        text_vocab: int = 256,
        text_dim: int = 32,
        norm: bool = False,
    ):
        refuse_other(self, spaces, VLASpaces)
        super().__init__(hidden=hidden, text_vocab=text_vocab, text_dim=text_dim, norm=norm)
        if min(hidden, text_dim) < 1 or text_vocab < 2 or text_vocab & (text_vocab - 1):
            raise UserError(
                f"TinyVLANetworks needs positive widths and text_vocab a power of two, got hidden={hidden}, "
                f"text_dim={text_dim}, text_vocab={text_vocab}"
            )
        if spaces.instruction_bytes > MAX_BYTES:
            raise UserError(
                f"TinyVLANetworks hashes at most {MAX_BYTES} bytes exactly, not {spaces.instruction_bytes} of an "
                "instruction"
            )
        parts = _parts(spaces, norm, vocab_size=outputs, hidden_dim=hidden, text_vocab=text_vocab, text_dim=text_dim)
        self.encoder = _TinyVLAEncoder(parts, spaces, norm)
        with torch.no_grad():
            parts.head(self.encoder(spaces.blank()))  # layers find their input sizes at the first call
        # Nearly uniform to begin with, as in the other bodies.
        nn.init.orthogonal_(parts.head.weight, 0.01)
        nn.init.zeros_(parts.head.bias)
        self.actor = as_head(parts.head)
        self.critic = critic = MLP(in_features=hidden, out_features=spaces.chunk, num_cells=[hidden, hidden])
        critic[-1] = as_head(critic[-1])


def _parts(spaces: VLASpaces, norm: bool, **sizes: int) -> TinyVLA:
    """The parts of `TinyVLA`; cameras of one size share an encoder of images, of different sizes each has its own."""
    chunk, dimensions = spaces.decision

    def made() -> TinyVLA:
        parts = TinyVLA(action_dim=dimensions, chunk_size=chunk, action_head="tokens", **sizes)
        if norm:  # before the rectifier of the one, and the tanh of the other
            parts.image_encoder.insert(2, nn.LayerNorm(parts.hidden_dim))
            parts.trunk.insert(1, nn.LayerNorm(parts.hidden_dim))
        return parts

    parts = made()
    if len(spaces.image_shape) == 1:
        others = [made().image_encoder for _ in spaces.shapes[1:]]
        parts.image_encoder = _ImageEncoders([parts.image_encoder, *others], spaces)
    return parts


class _ImageEncoders(nn.ModuleList):
    """Pixels [..., P] of cameras of different sizes → [..., K·hidden] features, by an encoder of each."""

    def __init__(self, encoders: list[nn.Module], spaces: VLASpaces):
        super().__init__(encoders)
        self._spaces = spaces

    def forward(self, pixels: Tensor) -> Tensor:
        seen = zip(self, self._spaces.apart(pixels), strict=True)
        return torch.cat([encoder(image) for encoder, image in seen], -1)


class _TinyVLAEncoder(nn.Module):
    """TinyVLA's encoders and trunk over tensors alone: [..., hidden] features, for the loss and the exported graph."""

    weights: Tensor

    def __init__(self, parts: TinyVLA, spaces: VLASpaces, centred: bool):
        super().__init__()
        self.text_vocab, self.centred = parts.text_vocab, centred
        self.image, self.state, self.text, self.trunk = (
            parts.image_encoder, parts.state_encoder, parts.text_embedding, parts.trunk,
        )  # fmt: skip
        # Odd factors, so that no byte is lost in the remainder.
        factors = torch.randint(0, 64, (spaces.instruction_bytes,), generator=torch.Generator().manual_seed(0))
        self.register_buffer("weights", (2 * factors + 1).float())

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        state = observation["state"]
        pixels = observation["image"].to(state.dtype) / 255
        seen = self.image(2 * pixels - 1 if self.centred else pixels)
        text = self.text(self._hash(observation["instruction"]))
        features: Tensor = self.trunk(torch.cat([seen, self.state(state), text], -1))
        return features

    def _hash(self, instruction: Tensor) -> Tensor:
        """Σ wᵢ·bᵢ mod V of the bytes b [..., L], in float32, which is exact below 2²⁴."""
        total = (instruction.to(self.weights.dtype) * self.weights).sum(-1)
        return (total - (total / self.text_vocab).floor() * self.text_vocab).long()
