"""Parity: torch and ONNX Runtime are asked the same questions before an artifact is written."""

import copy
from dataclasses import dataclass

import numpy as np
import torch

from deploy.export import probes
from deploy.export.graph import StochasticPolicy, as_policy, layout_of, observed
from deploy.export.probes import Outputs, Run
from deploy.runtime.acting import OUTPUTS
from deploy.runtime.inference import rows_at_once
from deploy.runtime.layout import Layout
from deploy.runtime.manifest import MAX_ROUNDING
from gipo.common.errors import UserError
from gipo.policies import Policy, TokenPolicy

ACTION_TOLERANCE = 1e-6  # of the largest bound
LOG_PROB_TOLERANCE = 1e-5  # nats
# Torch's own float32 is `rounding` away from float64; another float32 runtime may be so many times that away.
SLACK = 8


@dataclass(frozen=True)
class Parity:
    """How far torch and ONNX Runtime were apart, and on what.

    Args:
        observations: rows compared, extreme ones included.
        action: largest |Δ action|, environment units.
        log_prob: largest |Δ log-prob|, nats.
        rounding: largest difference of torch's float32 distribution parameters from float64 ones.
        redrawn: noise values drawn again, as rounding would have decided between two tokens.
        ties: deterministic tokens left out, as rounding decides which of two logits is larger.
    """

    observations: int
    action: float
    log_prob: float
    rounding: float
    redrawn: int
    ties: int


@dataclass(frozen=True)
class Probe:
    """Questions, and the torch policy's answers. Shapes: observation [N, R]; noise [N, K]; tied [N, K] bool."""

    observation: np.ndarray
    noise: np.ndarray
    answers: Outputs
    rounding: float
    tied: np.ndarray
    redrawn: int


def probe(policy: Policy, count: int, seed: int) -> Probe:
    """Ask the torch policy about `count` random observations and the extreme ones.

    Raises:
        UserError: when float32 is too coarse for this policy.
    """
    rng = np.random.default_rng(seed)
    observation = probes.observations(policy, count, rng)
    noise = probes.noise(policy, len(observation), rng)
    run = torch_run(policy)
    params = run(observation, noise)["params"]
    rounding = _rounding(policy, observation, params)
    redrawn = _avoid_steps(params, noise, rounding, rng) if isinstance(policy, TokenPolicy) else 0
    tied = probes.margin(policy, params) < SLACK * rounding
    return Probe(observation, noise, run(observation, noise), rounding, tied, redrawn)


def torch_run(policy: Policy, device: torch.device | None = None, at_once: int | None = None) -> Run:
    """The torch policy as a function from observation [N, R] and noise [N, K] to the outputs, all numpy.

    Args:
        policy: to be run.
        device: it is on; the CPU when None.
        at_once: rows that go through it together; as many as through ONNX Runtime when None.
    """
    module, layout = StochasticPolicy(policy).eval(), layout_of(policy)

    def run(observation: np.ndarray, noise: np.ndarray) -> Outputs:
        parts = []
        for rows in _parts(layout, len(observation), at_once):
            feeds = layout.feeds(observation[rows], noise[rows]).values()
            with torch.no_grad():
                answered = module(*(torch.from_numpy(value).to(device) for value in feeds))
            parts.append([value.cpu().numpy() for value in answered])
        answers = (np.concatenate(values) for values in zip(*parts, strict=True))
        return {name: layout.flat(answer) for name, answer in zip(OUTPUTS, answers, strict=True)}

    return run


def _parts(layout: Layout, count: int, at_once: int | None = None) -> list[slice]:
    """Rows that go through torch together: as many as through ONNX Runtime, unless told otherwise."""
    most = at_once or rows_at_once("float32", layout)
    return [slice(start, start + most) for start in range(0, count, most)]


def compare(policy: Policy, asked: Probe, found: Outputs) -> Parity:
    """Compare ONNX Runtime's answers with torch's.

    Raises:
        UserError: when a token differs, or an action or log-prob is out of tolerance.
    """
    wanted = asked.answers
    if isinstance(policy, TokenPolicy) and (wrong := int((found["latent"] != wanted["latent"]).sum())):
        raise UserError(f"ONNX Runtime samples {wrong} tokens of {wanted['latent'].size} otherwise than torch")
    layout = layout_of(policy)
    largest = torch.maximum(policy.action_low.abs(), policy.action_high.abs()).numpy()
    largest = np.tile(largest, layout.decision_size // layout.action_size)
    rounding = SLACK * asked.rounding
    of_action, of_log_prob = largest * max(ACTION_TOLERANCE, rounding), max(LOG_PROB_TOLERANCE, rounding)
    worst: dict[str, float] = {}
    for name, allowed in (("action", of_action), ("deterministic_action", of_action), ("log_prob", of_log_prob)):
        difference = np.abs(found[name].astype(np.float64) - wanted[name])
        if name == "deterministic_action":
            difference = np.where(asked.tied, 0.0, difference)
        if not (difference <= allowed).all():  # written so that NaN fails
            row = int(np.argwhere(~(difference <= allowed))[0, 0])
            raise UserError(
                f"ONNX Runtime's {name} is {np.nanmax(difference):.2e} away from torch's (question {row}), "
                f"and float32 rounding explains only {np.max(allowed):.2e}; nothing was written"
            )
        worst[name] = float(difference.max())
    action = max(worst["action"], worst["deterministic_action"])
    ties = int(asked.tied.sum())
    return Parity(len(asked.observation), action, worst["log_prob"], asked.rounding, asked.redrawn, ties)


def _rounding(policy: Policy, observation: np.ndarray, params: np.ndarray) -> float:
    """Largest error of the network's float32; its input, which every runtime rounds alike, is the normalised one."""
    exact, layout = copy.deepcopy(policy).double(), layout_of(policy)
    exact.normaliser = None
    parts = []
    for rows in _parts(layout, len(observation)):
        seen = observed(layout, observation[rows])
        state = seen["observation"]
        with torch.no_grad():
            normalised = state if policy.normaliser is None else policy.normaliser(state)
            parts.append(exact.params(as_policy((seen | {"observation": normalised.double()}).values())))
    reference = layout.flat(np.concatenate(parts))
    rounding = float(np.abs(params.astype(np.float64) - reference).max())
    if not rounding <= MAX_ROUNDING:
        raise UserError(
            f"float32 is {rounding:.2e} away from float64 in this policy's distribution parameters, more than "
            f"{MAX_ROUNDING}: its weights are too large to run on a robot; was training stable?"
        )
    return rounding


def _avoid_steps(params: np.ndarray, noise: np.ndarray, rounding: float, rng: np.random.Generator) -> int:
    """Draw again, in place, the noise so close to a step of the CDF that the last bits choose the token; how many."""
    steps = probes.cdf(params)[..., :-1]
    width = max(1e-5, SLACK * rounding)
    redrawn = 0
    close = np.argwhere(np.abs(steps - noise[..., None]).min(-1) < width)
    while len(close):
        redrawn += len(close)
        if redrawn > 10 * noise.size:
            raise UserError(f"float32 rounding ({rounding:.2e}) decides this policy's tokens; was training stable?")
        rows, columns = close.T
        noise[rows, columns] = rng.random(len(close), dtype=np.float32)
        close = close[np.abs(steps[rows, columns] - noise[rows, columns, None]).min(-1) < width]
    return redrawn
