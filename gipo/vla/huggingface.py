"""The body of an OpenVLA-OFT-like policy: a Hugging Face vision-language model that decodes all action tokens at once.

One forward pass over [begin, image features, prompt, state, H·D empty embeddings]; the empty positions see the whole
prompt and each other, and the hidden state at each gives the logits of one action token, over what were the last V ids
of the vocabulary (arXiv 2502.19645, with the discrete actions of arXiv 2406.09246).
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gipo.common.errors import UserError
from gipo.networks import ActorCritic, Head, refuse_other
from gipo.vla.observations import VLASpaces, decode_instructions, flattened
from gipo.vla.pretrained import language_model, load_pretrained, located, recompute_layers, with_adapters

PROMPT = "In: What action should the robot take to {instruction}?\nOut:"


class HuggingFaceNetworks(ActorCritic):
    """A pretrained LLaVA-like model, or a SmolVLM, with low-rank adapters, a float32 token head and a critic.

    Of several cameras the model is shown the images one after another, in their order.

    The pretrained weights are frozen, stay where they are, and are no part of a checkpoint, which holds adapters, state
    projector, token head and critic, and a checksum of the frozen weights. Only safetensors are read.

    Args:
        spaces: what the policy is built for.
        outputs: V, bins of an action dimension.
        pretrained: folder or hub id of the model, with its tokenizer and `preprocessor_config.json`.
        rank: of the adapters, on every linear layer but the head.
        alpha: their scale, times rank.
        dtype: of the pretrained weights; adapters, heads and log-probs are float32.
        prompt: what surrounds the instruction.
        critic_width: width of the critic's hidden layer.
    """

    exportable, large, rows_at_once = False, True, 64

    def __init__(
        self,
        spaces: VLASpaces,
        outputs: int,
        pretrained: str,
        rank: int = 32,
        alpha: int = 16,
        dtype: Literal["bfloat16", "float32"] = "bfloat16",
        prompt: str = PROMPT,
        critic_width: int = 256,
    ):
        refuse_other(self, spaces, VLASpaces)
        pretrained = located(str(pretrained))
        super().__init__(
            pretrained=pretrained, rank=rank, alpha=alpha, dtype=dtype, prompt=prompt, critic_width=critic_width
        )
        self._sizes = (spaces, outputs)
        if rank < 1 or "{instruction}" not in prompt:
            raise UserError(
                f"HuggingFaceNetworks needs rank ≥ 1 and a prompt with {{instruction}}, got {rank}, {prompt!r}"
            )
        model, tokenizer, pixels = load_pretrained(pretrained, getattr(torch, dtype))
        head = model.get_output_embeddings().weight
        if not outputs <= tokenizer.vocab_size <= len(head):
            raise UserError(
                f"{pretrained} has a vocabulary of {tokenizer.vocab_size} and {len(head)} output rows; "
                f"policy.bins={outputs} must fit into both"
            )
        window = head[tokenizer.vocab_size - outputs : tokenizer.vocab_size].detach().float()
        self.statistics: dict[str, Any] = getattr(model.config, "norm_stats", None) or {}
        self.encoder = _HuggingFaceEncoder(with_adapters(model, rank, alpha), tokenizer, pixels, prompt, spaces)
        self.actor = _TokenHead(window)
        self.critic = _ChunkCritic(window.shape[1], critic_width)

    def recompute(self) -> None:
        """Keep no activations of the model's layers for the backward pass, which computes them once more."""
        recompute_layers(self.encoder.model)
        self.encoder.train(self.encoder.training)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process go only the weights that learn; transformers' own hooks could not."""
        return _remade, (*self._sizes, self._config, self.critic, self.state_dict())

    def __deepcopy__(self, memo: dict[int, Any]) -> "HuggingFaceNetworks":
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made


def _remade(
    spaces: VLASpaces, outputs: int, config: dict[str, Any], critic: nn.Module, weights: dict[str, Tensor]
) -> HuggingFaceNetworks:
    made = HuggingFaceNetworks(spaces, outputs, **config)
    made.critic = critic
    made.load_state_dict(weights)
    return made


class _HuggingFaceEncoder(nn.Module):
    """Observations → hidden states of the action tokens [..., H, D, hidden], float32."""

    mean: Tensor
    std: Tensor
    frozen: Tensor

    def __init__(self, model: Any, tokenizer: Any, pixels: dict[str, Any], prompt: str, spaces: VLASpaces):
        super().__init__()
        self.model, self.spaces = model, spaces
        width = model.config.text_config.hidden_size
        # The state as one more token of the prompt.
        self.state = nn.Sequential(nn.Linear(spaces.state_size, width), nn.GELU(), nn.Linear(width, width))
        self.size = model.config.vision_config.image_size
        statistics = [torch.tensor(pixels[f"image_{name}"]).view(-1, 1, 1) for name in ("mean", "std")]
        self.register_buffer("mean", statistics[0], persistent=False)
        self.register_buffer("std", statistics[1], persistent=False)
        begin = tokenizer.bos_token_id
        self._begin = [] if begin is None else [begin]
        self._tokenizer, self._prompt = tokenizer, prompt
        frozen = [value.double().sum() for value in model.parameters() if not value.requires_grad]
        self.register_buffer("frozen", torch.stack(frozen).sum())
        # By each of its names: a head may be tied to the embeddings. What learned and then is frozen is not among them.
        named = model.named_parameters(remove_duplicate=False)
        self._pretrained = [name for name, value in named if not value.requires_grad]
        self.register_state_dict_post_hook(_drop_frozen)
        self.register_load_state_dict_pre_hook(_keep_frozen)
        self.train()

    def train(self, mode: bool = True) -> "_HuggingFaceEncoder":
        """The pretrained model never drops out: its log-probs must be those of the policy that acted."""
        super().train(mode)
        self.model.eval()
        for layer in self.model.modules():
            # The layer's own mark alone: it recomputes itself when it is trained, and what drops out lies within it.
            layer.training = getattr(layer, "gradient_checkpointing", False)
        return self

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        batch = observation["state"].shape[:-1]
        image, state, instruction = flattened(observation)
        embed = self.model.get_input_embeddings()
        dtype = embed.weight.dtype
        seen = self._seen(image, dtype)
        prompt, given = self._prompts(instruction)
        begin = embed(torch.tensor(self._begin, device=state.device, dtype=torch.int64)).expand(len(state), -1, -1)
        queries = self.spaces.chunk * len(self.spaces.action_low)
        parts = [
            begin, seen.to(dtype), embed(prompt), self.state(state).to(dtype).unsqueeze(1),
            begin.new_zeros(len(state), queries, begin.shape[-1]),
        ]  # fmt: skip
        known = F.pad(given, (begin.shape[1] + seen.shape[1], 1 + queries), value=True)  # all else is no padding
        hidden = language_model(self.model.model)(
            inputs_embeds=torch.cat(parts, 1),
            attention_mask=parallel_mask(known, queries, dtype),
            position_ids=(known.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state[:, -queries:]
        return hidden.float().unflatten(1, self.spaces.decision).unflatten(0, batch)

    def _seen(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Embeddings [B, K·T, hidden] of the images of K cameras, one after another."""
        each = torch.stack([self._pixels(seen) for seen in self.spaces.apart(image)], 1)  # [B, K, C, size, size]
        return (
            _image_features(self.model.model, each.flatten(0, 1).to(dtype)).unflatten(0, each.shape[:2]).flatten(1, 2)
        )

    def _pixels(self, image: Tensor) -> Tensor:
        """[B, C, H, W] uint8 → [B, C, size, size] as the vision tower was trained on."""
        scaled = F.interpolate(image.float() / 255, (self.size, self.size), mode="bicubic", antialias=True)
        return (scaled.clamp(0, 1) - self.mean) / self.std

    def _prompts(self, instruction: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids of the prompts, [B, T], and which of them are no padding."""
        different, which = instruction.unique(dim=0, return_inverse=True)
        texts = [self._prompt.replace("{instruction}", text) for text in decode_instructions(different)]
        tokens = [torch.tensor(ids) for ids in self._tokenizer(texts, add_special_tokens=False)["input_ids"]]
        ids = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        given = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
        return ids.to(instruction.device)[which], given.to(instruction.device)[which].bool()


def parallel_mask(known: Tensor, queries: int, dtype: torch.dtype) -> Tensor:
    """Additive attention mask [B, 1, T, T]: causal, but the last `queries` positions also see each other.

    Args:
        known: [B, T] bool, False for padding, which nobody sees.
        queries: H·D.
        dtype: of the embeddings.
    """
    length = known.shape[1]
    position = torch.arange(length, device=known.device)
    sees = position[:, None] >= position[None, :].clamp(max=length - queries)
    sees = sees & known[:, None, None, :]
    return torch.where(sees, 0.0, torch.finfo(dtype).min).to(dtype)


def _image_features(model: Any, pixels: Tensor) -> Tensor:
    """Embeddings [B, T, hidden] of images [B, C, size, size]; those that have a `text_model` take several a prompt."""
    several = hasattr(model, "text_model")
    found = model.get_image_features(pixel_values=pixels.unsqueeze(1) if several else pixels)
    return torch.stack(list(found.pooler_output))


class _TokenHead(nn.Module):
    """[..., H, D, hidden] → [..., H·D·V] logits, float32, by what were the rows of the language model's own head."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features.float(), self.weight).flatten(-3)


class _ChunkCritic(nn.Module):
    """[..., H, D, hidden] → [..., H·outputs of a value]: of each chunk step, from the mean of its tokens."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, width), nn.Tanh(), Head(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.layers(features.mean(-2)).flatten(-2)
        return outputs


def _drop_frozen(module: "_HuggingFaceEncoder", state: dict[str, Any], prefix: str, ___: Any) -> None:
    for name in module._pretrained:
        state.pop(f"{prefix}model.{name}", None)


def _keep_frozen(module: "_HuggingFaceEncoder", state: dict[str, Any], prefix: str, *others: Any) -> None:
    *_, errors = others  # of which torch makes the message that refuses the weights
    found = state.get(f"{prefix}frozen")
    if found is not None and not torch.isclose(found.cpu(), module.frozen.cpu(), rtol=1e-9, atol=0.0):
        errors.append("the pretrained model's frozen weights are not those that the checkpoint was trained with")
    for name in module._pretrained:
        state.setdefault(f"{prefix}model.{name}", module.model.get_parameter(name))
