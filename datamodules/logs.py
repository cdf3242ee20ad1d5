"""The logs of a run: ingested when first asked for, completed for the policy that is to learn from them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from tensordict import TensorDictBase

from datamodules.behaviour import BehaviourOptions, complete
from datamodules.ingest import IngestOptions, Store, ingest
from gipo.errors import GipoError
from gipo.policies import Policy, Spaces

NAMES = ("observation_names", "observation_units", "action_names", "action_units", "control_rate_hz")


class Logs:
    """Sources of stale transitions.

    Args:
        sources: files or folders: MCAP logs of gipo-robot, LeRobot v3 and Minari datasets.
        options: how they are checked and converted.
        behaviour: model of who acted, for sources that hold no log-probs.
        seed: of that model.
        bounds: lower and upper bounds of an action, for sources that do not say them.
    """

    def __init__(
        self,
        sources: str | Sequence[str],
        options: IngestOptions,
        behaviour: BehaviourOptions | None,
        seed: int,
        bounds: tuple[Sequence[float], Sequence[float]] | None = None,
    ):
        self.sources = [sources] if isinstance(sources, str) else list(sources)
        if not self.sources:
            raise GipoError("data.logs names no source")
        self._options, self._behaviour, self._seed = options, behaviour, seed
        self._bounds = bounds
        self._store: Store | None = None
        self._frames: TensorDictBase | None = None

    @property
    def store(self) -> Store:
        """The converted sources."""
        if self._store is None:
            self._store = ingest(self.sources, self._options)
        return self._store

    @property
    def spaces(self) -> Spaces:
        """What a policy for these logs is built for."""
        interface = self.store.facts.interface
        low, high = self._bounds or (interface.action_low, interface.action_high)
        if low is None or high is None:
            raise GipoError("the logs do not say the bounds of an action; give data.action_low and data.action_high")
        if not len(low) == len(high) == interface.action_size:
            raise GipoError(f"data.action_low and data.action_high need {interface.action_size} numbers each")
        return Spaces(interface.observation_size, tuple(low), tuple(high))

    def frames(self, policy: Policy, needs_behaviour: bool) -> TensorDictBase:
        """All transitions [M], with latents and behaviour log-probs.

        Args:
            policy: that is to learn from them.
            needs_behaviour: whether its objective reads behaviour log-probs.

        Raises:
            GipoError: when they cannot be had.
        """
        if self._frames is None:
            self._frames = complete(self.store, policy, self._behaviour, needs_behaviour, self._seed)
        return self._frames

    def provenance(self) -> dict[str, Any]:
        """Which logs, and the policy that acted in most of them, for the lineage of a checkpoint."""
        facts = self.store.facts
        sizes = [source.steps for source in facts.sources]
        valid = self.store.frames["valid"]
        acted = torch.where(valid, self.store.frames["policy"], -1)
        logs = []
        for source, policies, used in zip(facts.sources, acted.split(sizes), valid.split(sizes), strict=True):
            names = [facts.policies[index] for index in policies.unique().tolist() if index >= 0]
            session = source.sessions[0] if len(source.sessions) == 1 else None
            steps = int(used.sum())
            logs.append({"session": session, "sha256": source.sha256, "policy_ids": names, "steps": steps})
        known = acted[acted >= 0]
        parent = facts.policies[int(known.bincount().argmax())] if len(known) else None
        return {"parent": parent, "logs": logs}

    def interface(self) -> dict[str, Any]:
        """Names, units and rate, as a checkpoint keeps them."""
        found = asdict(self.store.facts.interface)
        return {name: found[name] for name in NAMES if found[name] is not None}
