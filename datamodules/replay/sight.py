"""What a policy sees of logged decisions: images decoded when they are needed, and the words it was told."""

import torch
from tensordict import TensorDict, TensorDictBase

from datamodules.ingest import Store
from gipo.common.arrays.camera_images import joint
from gipo.common.errors import UserError
from gipo.vla.observations import VLASpaces, encode_instructions


class Sight:
    """Makes observations of decisions, as `datamodules.replay.decisions` has them, what a policy that sees takes.

    Args:
        store: with images, and the instructions that its policies were given.
        spaces: of the policy that is to see them.

    Raises:
        UserError: when an instruction is longer than what the policy reads.
    """

    def __init__(self, store: Store, spaces: VLASpaces):
        assert store.album is not None
        self._album, self._spaces = store.album, spaces
        # Number −1 finds the last, which says nothing.
        self._words = encode_instructions([*store.facts.instructions, ""], spaces.instruction_bytes)

    def __call__(self, kept: TensorDictBase) -> TensorDict:
        """Observations [B] with `image` [B, *image_shape] uint8, `state` [B, S] and `instruction` [B, L].

        Raises:
            UserError: when an image cannot be decoded, or is of another size than the policy takes.
        """
        numbers = kept["picture"].flatten(0, -2).unbind(-1)
        images = [torch.from_numpy(self._album[each.numpy()]).movedim(-1, -3) for each in numbers]  # [B, C, H, W]
        shapes = joint([(each.shape[1], each.shape[2], each.shape[3]) for each in images])
        if shapes != self._spaces.image:
            raise UserError(f"the images of the logs are {shapes}, the policy takes {self._spaces.image}")
        seen = {
            "image": self._spaces.together(images).unflatten(0, kept.batch_size),
            "state": kept["state"],
            "instruction": self._words[kept["instruction"]],
        }
        return TensorDict(seen, kept.batch_size)
