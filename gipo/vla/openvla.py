"""OpenVLA's action tokens: the last ids of a vocabulary, un-normalised by the statistics of a dataset."""

from typing import Any

import torch
from torch import Tensor
from torchrl.data.vla import VocabTailActionTokenizer

from gipo.common.errors import UserError
from gipo.vla.observations import VLASpaces
from gipo.vla.policies import VLANetworkFactory, VLATokenPolicy


class VocabTailPolicy(VLATokenPolicy):
    """Chunks of OpenVLA's action tokens (arXiv 2406.09246), as TorchRL's `VocabTailActionTokenizer` has them.

    Token k is the centre of a bin of [−1, 1], from the top down; dimensions that the statistics do not mask are
    stretched to [q01, q99] of the dataset, without statistics to the bounds of an action, and always clipped to them.

    Args:
        spaces: what the policy is built for.
        network: the body, from spaces and V, such as `gipo.vla.huggingface.HuggingFaceNetworks`.
        bins: V, edges of bins per action dimension.
        normalise: standardise the state by running moments that are part of the policy.
        unnorm_key: dataset whose statistics the pretrained model brings (`norm_stats` of its configuration).
        gripper_binarize: make the masked dimensions −1 or 1.
        gripper_invert: turn their sign around.
    """

    def __init__(
        self,
        spaces: VLASpaces,
        network: VLANetworkFactory,
        bins: int = 256,
        normalise: bool = True,
        unnorm_key: str | None = None,
        gripper_binarize: bool = False,
        gripper_invert: bool = False,
    ):
        super().__init__(spaces, network=network, bins=bins, normalise=normalise)
        self.options = {
            "unnorm_key": unnorm_key, "gripper_binarize": gripper_binarize, "gripper_invert": gripper_invert,
        }  # fmt: skip
        bounds = {"q01": spaces.action_low, "q99": spaces.action_high}
        statistics: dict[str, Any] = {"bounds": {"action": bounds}} | getattr(self.network, "statistics", {})
        key = "bounds" if unnorm_key is None else unnorm_key
        if key not in statistics:
            known = ", ".join(sorted(set(statistics) - {"bounds"})) or "none"
            raise UserError(f"the pretrained model has no statistics of {key!r}; policy.unnorm_key may name: {known}")
        self.tokenizer = VocabTailActionTokenizer.from_norm_stats(
            statistics, key, num_bins=bins, gripper_binarize=gripper_binarize, gripper_invert=gripper_invert
        )
        if (gripper_binarize or gripper_invert) and bool(self.tokenizer.norm_mask.all()):
            raise UserError(
                f"policy.gripper_binarize and .gripper_invert are of what statistics mask, and those of {key!r} mask "
                "nothing; name others by policy.unnorm_key"
            )
        if len(self.tokenizer.norm_low) != self.action_size:
            raise UserError(
                f"the statistics of {key!r} are of {len(self.tokenizer.norm_low)} actions, not {self.action_size}"
            )

    def config(self) -> dict[str, Any]:
        """Constructor arguments beside `spaces` and `network`."""
        return super().config() | self.options

    def to_env(self, latent: Tensor) -> Tensor:
        """Actions [..., H, D] of tokens: centres of their bins, un-normalised, within the bounds."""
        action = self.tokenizer.decode(latent).to(self.action_low.dtype)
        return torch.minimum(torch.maximum(action, self.action_low), self.action_high)

    def from_env(self, action: Tensor) -> Tensor:
        """The tokens whose bins hold actions [..., H, D], environment units."""
        if self.options["gripper_invert"]:
            action = torch.where(self.tokenizer.norm_mask, action, -action)
        tokens: Tensor = self.tokenizer.encode(action)
        return tokens
