"""The policy an artifact describes, in torch eager with fresh weights: what its latency is compared with."""

from collections.abc import Callable

import numpy as np
import torch

from deploy.export.graph import as_policy, observed
from deploy.runtime.check import MAX_BYTES
from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from gipo.policies import build


def decision(manifest: Manifest, observation: np.ndarray) -> Callable[[], object] | None:
    """One sampled decision at batch 1: observation [R] in; action, latent and log-prob out, as numpy.

    None where this gipo cannot build the policy, as another version of it may have described it, or where it describes
    more parameters than an artifact can hold.
    """
    torch.set_num_threads(1)
    try:
        with torch.device("meta"):  # its sizes alone, before any memory is taken
            size = sum(each.numel() for each in build(dict(manifest.policy)).parameters())
        if size > MAX_BYTES // 4:
            return None
        policy = build(dict(manifest.policy)).eval()
    except UserError:
        return None
    generator = torch.Generator().manual_seed(0)
    layout = manifest.layout

    @torch.inference_mode()
    def step() -> tuple[np.ndarray, ...]:
        params = policy.params(as_policy(observed(layout, observation[None]).values()))
        latent = policy.sample(params, policy.noise((1,), generator))
        chosen = (policy.to_env(latent), latent, policy.log_prob(params, latent), params)
        return tuple(value[0].numpy() for value in chosen)

    return step
