"""A checkpoint's policy, run by torch: what a server answers with where no artifact can be made of a model."""

import numpy as np
import torch

from deploy.export.description import interface_of, manifest_of
from deploy.export.parity import torch_run
from deploy.export.probes import golden_vectors
from deploy.runtime.acting import ActingPolicy
from deploy.runtime.identity import file_id, refuse_other
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.common.checkpoint_head import CheckpointHead
from gipo.common.errors import UserError, first_line
from gipo.common.files import PathLike
from gipo.networks import convolve_in_single
from robots.spec import RobotSpec

GOLDEN = 4  # vectors


class CheckpointPolicy(ActingPolicy):
    """A policy that acts by torch, with all that a pretrained model needs, in this process.

    Its id is the SHA-256 of the file, as an artifact's. Its golden vectors are its own answers when it is loaded: they
    hold its clients to what is served, and say nothing of another runtime.

    A large network is asked question by question: in bfloat16 its log-probs hang on how many are asked together, by
    hundredths of a nat, and what an audit recomputes must be what a robot was told.

    Args:
        checkpoint: a checkpoint of `gipo`.
        rate: control rate, Hz, where the checkpoint does not say.
        device: of torch, such as `cpu` or `cuda`; None is the GPU for a large network where there is one, else the CPU.
        timeless: the rate does not matter, as where log-probs alone are asked for.
        require_id: the policy id it must have, or a file that lists the ids allowed.
        robot: that the policy is for; its names, units and rate are the policy's where the checkpoint does not say.

    Raises:
        UserError: when the checkpoint is unusable, not the one required, of another robot, or changed while it is read;
            or there is no such device.
    """

    def __init__(
        self,
        checkpoint: PathLike,
        rate: float | None = None,
        device: str | None = None,
        timeless: bool = False,
        require_id: str | None = None,
        robot: RobotSpec | None = None,
    ):
        convolve_in_single()
        policy_id = file_id(checkpoint)
        refuse_other(policy_id, require_id, f"{checkpoint} is")
        loaded = load_checkpoint(checkpoint)
        if file_id(checkpoint) != policy_id:
            raise UserError(f"{checkpoint} changed while it was read, as a run's last.ckpt does; give a copy of it")
        head, policy = CheckpointHead.of(loaded), policy_from(loaded)
        large = policy.network.large
        if device is None:
            device = "cuda" if large and torch.cuda.is_available() else "cpu"
        if timeless:
            rate = (head.interface or {}).get("control_rate_hz", 1.0)
        interface = interface_of(head, policy, rate, robot)
        try:
            run = torch_run(policy.to(device), torch.device(device), 1 if large else None)
            choice = 1 if large else 8  # every question of a large network takes its time
            golden = golden_vectors(policy, run, seed=1, count=GOLDEN, choice=choice)
        except (RuntimeError, AssertionError) as error:  # torch's kinds for what it was not built for
            raise UserError(f"--device {device}: {first_line(error)}") from error
        manifest = manifest_of(head, policy, interface, golden, rounding=0.0)
        if robot is not None:
            robot.check(manifest)
        super().__init__(manifest, policy_id)
        self._run_torch = run

    def _outputs(self, names: tuple[str, ...], rows: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
        found = self._run_torch(rows, noise)
        return [found[name] for name in names]
