"""A policy that acts: what it is asked and what it answers, wherever its graph is run."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deploy.runtime import distributions
from deploy.runtime.golden import compare
from deploy.runtime.latents import LatentMap
from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError

OUTPUTS = ("action", "deterministic_action", "latent", "log_prob", "params")


@dataclass(frozen=True)
class Decision:
    """What the policy chose.

    Shapes: action, latent, log_prob [D] or [B, D]; params [D, P] or [B, D, P]; of a policy over chunks of H actions
    [H, D] in place of [D].

    Args:
        action: environment units, inside the manifest's bounds; float32.
        latent: what `log_prob` is of: int64 tokens, or the float32 value before squashing.
        log_prob: of each action dimension, nats, float32; what the log must keep.
        params: parameters of the distribution it was drawn from.
    """

    action: np.ndarray
    latent: np.ndarray
    log_prob: np.ndarray
    params: np.ndarray


class ActingPolicy(ABC):
    """A verified policy, ready to act. Safe to use from several threads; each brings its own generator.

    Args:
        manifest: of its artifact.
        policy_id: of its artifact.
    """

    def __init__(self, manifest: Manifest, policy_id: str):
        self.manifest = manifest
        self.policy_id = policy_id
        self._layout = manifest.layout

    @abstractmethod
    def _outputs(self, names: tuple[str, ...], rows: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
        """The named outputs of the graph [B, K] or [B, K, P] for rows [B, R] and noise [B, K], both checked float32."""

    def replay_golden(self) -> str:
        """Ask the golden vectors; what was found, as text for a person.

        Raises:
            UserError: when they do not come out.
        """
        golden = self.manifest.golden
        asked, noise = np.array(golden.observation, np.float32), np.array(golden.noise, np.float32)
        # Row by row, as a robot asks: a batch may go through another kernel.
        each = [slice(i, i + 1) for i in range(len(asked))]
        runs = [self._outputs(OUTPUTS, self._layout.rows(asked[one]), noise[one]) for one in each]
        found = [np.concatenate(values) for values in zip(*runs, strict=True)]
        return compare(self.manifest, dict(zip(OUTPUTS, found, strict=True)))

    def act(self, observation: np.ndarray, rng: np.random.Generator | None, deterministic: bool = False) -> Decision:
        """Choose an action for observation [O], or one for each row of [B, O].

        Args:
            observation: raw, in the manifest's order and units; of a policy with vision what `row` gives.
            rng: source of the noise; a batch draws what as many single calls would. Unused when deterministic.
            deterministic: the most likely action instead of a sampled one.

        Raises:
            ValueError: when the observation has another shape, is not finite, or holds pixels that are none.
            UserError: when what the policy decides is not finite.
        """
        rows = self._rows(observation)
        if deterministic:
            action, params = self._run(("deterministic_action", "params"), rows, np.zeros(self._noise_shape(rows)))
            latent = distributions.mode(self.manifest.family, params)
            log_prob = distributions.log_prob(self.manifest.family, params, latent).astype(np.float32)
        else:
            if rng is None:
                raise ValueError("a sampled action needs a numpy generator; pass one, or deterministic=True")
            noise = self.noise((len(rows),), rng)
            action, latent, log_prob, params = self._run(("action", "latent", "log_prob", "params"), rows, noise)
        batch = () if np.ndim(observation) == 1 else (len(rows),)
        shape = (*batch, *self._layout.decision)
        action, latent, log_prob = (value.reshape(shape) for value in (action, latent, log_prob))
        return Decision(action, latent, log_prob, params.reshape(*shape, -1))

    @cached_property
    def latents(self) -> LatentMap:
        """The map between the latents of this policy and its actions.

        Raises:
            UserError: when that is none of the ways known, as with a policy class of one's own.
        """
        return LatentMap.of(self.manifest)

    def judged(self, decision: Decision, action: np.ndarray) -> Decision:
        """What the policy that made a decision [D] thinks of another action [D] in its place, which may be anybody's.

        The latent is that of the nearest action the policy could have taken.

        Raises:
            ValueError: when the action has another shape than the decision's.
        """
        if np.shape(action) != decision.action.shape:
            raise ValueError(f"the action has shape {np.shape(action)}; it must be {decision.action.shape}")
        latent = self.latents.latent(np.asarray(action, float))
        log_prob = distributions.log_prob(self.manifest.family, decision.params, latent).astype(np.float32)
        return Decision(np.asarray(action, np.float32), latent, log_prob, decision.params)

    def row(self, values: np.ndarray, image: "np.ndarray | Mapping[str, np.ndarray]", instruction: str) -> np.ndarray:
        """The observation [R] that a policy with vision takes.

        Args:
            values: [O] state, raw, in the manifest's order and units.
            image: [H, W, C] uint8, red, green, blue; of several cameras [H, W, 3] each, by the names that the manifest
                has for them.
            instruction: what it is to do.

        Raises:
            ValueError: when the policy sees no images, or the image or the instruction has another size.
        """
        return self._layout.row(values, image, instruction)

    def noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Noise [*shape, K] as `evaluate` takes it: uniform in [0, 1) or standard normal, float32."""
        size = (*shape, self._layout.decision_size)
        if self.manifest.noise == "uniform":
            return rng.random(size, dtype=np.float32)
        return rng.standard_normal(size, dtype=np.float32)

    def evaluate(self, observation: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        """Every output of the graph, by name, for observation [B, R] and noise [B, K].

        Raises:
            ValueError: when a shape is wrong, the observation is not finite, or holds pixels that are none.
            UserError: when an output is not finite.
        """
        rows = self._rows(observation)
        return dict(zip(OUTPUTS, self._run(OUTPUTS, rows, np.asarray(noise)), strict=True))

    def log_prob_of(self, observation: np.ndarray, latent: np.ndarray) -> np.ndarray:
        """Log-prob [..., D] that this policy gives a logged latent, recomputed from the parameters; float64 nats.

        Args:
            observation: [O] or [B, O], raw.
            latent: [D] or [B, D], as it was logged; of a policy over chunks [H, D] or [B, H, D], or flat.

        Raises:
            ValueError: when a shape is wrong, the observation is not finite or holds pixels that are none, or a token
                does not exist.
            UserError: when the policy's parameters are not finite.
        """
        rows = self._rows(observation)
        wanted = (*np.shape(observation)[:-1], *self._layout.decision)
        if np.shape(latent) not in (wanted, (*np.shape(observation)[:-1], self._layout.decision_size)):
            raise ValueError(f"latent has shape {np.shape(latent)}; it must be {wanted}")
        latents = np.asarray(latent).reshape(self._noise_shape(rows))
        (params,) = self._run(("params",), rows, np.zeros(self._noise_shape(rows)))
        return distributions.log_prob(self.manifest.family, params, latents).reshape(np.shape(latent))

    def _rows(self, observation: np.ndarray) -> np.ndarray:
        rows = np.asarray(observation)
        if isinstance(observation, np.ma.MaskedArray) or rows.dtype.kind == "c":
            raise ValueError("the observation is masked or complex; give plain numbers")
        if rows.dtype != np.float32:
            with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused below
                rows = rows.astype(np.float32)
        size = self._layout.row_size
        if rows.ndim not in (1, 2) or rows.shape[-1] != size or rows.size == 0:
            raise ValueError(f"observation has shape {rows.shape}; it must be ({size},) or (B, {size}), B ≥ 1")
        rows = rows.reshape(-1, size)
        if not np.isfinite(rows).all():
            column = int(np.argwhere(~np.isfinite(rows))[0, 1])
            name = (*self.manifest.observation_names, "image")[min(column, self.manifest.observation_size)]
            raise ValueError(f"observation {name!r} is not finite; a policy must not act on it")
        self._layout.refuse_no_bytes(rows)
        return rows

    def _noise_shape(self, rows: np.ndarray) -> tuple[int, int]:
        return len(rows), self._layout.decision_size

    def _run(self, names: tuple[str, ...], rows: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
        noise = noise.astype(np.float32, copy=False)
        if noise.shape != self._noise_shape(rows):
            raise ValueError(f"noise has shape {noise.shape}; it must be {self._noise_shape(rows)}")
        if not np.isfinite(noise).all():
            raise ValueError("the noise is not finite")
        found = self._outputs(names, rows, noise)
        for name, values in zip(names, found, strict=True):
            # Tokens of parameters that are no numbers are whole, and mean nothing; their actions are finite.
            if name in ("params", "log_prob") and not math.isfinite(values.sum()):
                raise UserError(f"the policy's {name} is not finite: the observation is far from what it learned from")
        return found
