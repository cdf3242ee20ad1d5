"""Minari datasets (HDF5) as a source: our exports, and anybody's with flat observations and actions."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.ingest.interface import Interface
from datamodules.ingest.provenance import Origin, Provenance, joined, read_provenance
from datamodules.ingest.source import Description, Raw, Source, Trajectory
from gipo.errors import GipoError

if TYPE_CHECKING:
    import h5py

# The store's columns by those of an episode's group.
REQUIRED = {
    "observation": "observations",
    "sent_action": "actions",
    "reward": "rewards",
    "terminated": "terminations",
    "truncated": "truncations",
}
INFOS = {name: f"infos/{name}" for name in ("latent", "log_prob", "policy_version", "valid", "step")}
NATIVE = {**REQUIRED, **INFOS, "action": "infos/policy_action"}
OPTIONAL = {**INFOS, "success": "infos/success"}
Columns = dict[str, np.ndarray]


class MinariSource(Source):
    """A dataset folder: `data/main_data.hdf5` and `data/metadata.json`."""

    kind = "minari"

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """A folder with `data/main_data.hdf5`."""
        return (path / "data" / "main_data.hdf5").is_file()

    def files(self) -> dict[str, Path]:
        """Data and metadata."""
        found = [self._data, self._metadata_path, self._provenance_path]
        return {path.relative_to(self.path).as_posix(): path for path in found if path.is_file()}

    def describe(self) -> Description:
        """From our own metadata, else from the spaces of the dataset."""
        provenance = read_provenance(self._provenance_path)
        return Description(_interface(self._metadata_path)) if provenance is None else provenance.description

    def episodes(self) -> Iterator[Raw]:
        """Every episode; the segments that one was exported as are one again."""
        provenance = read_provenance(self._provenance_path)
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise GipoError(f"{self.path}: Minari datasets need {error.name}: pip install 'gipo[export]'") from error
        try:
            with h5py.File(self._data, "r") as file:
                numbers = sorted(int(name.removeprefix("episode_")) for name in file if name.startswith("episode_"))
                expected = json.loads(self._metadata_path.read_text(encoding="utf-8"))["total_episodes"]
                if numbers != list(range(expected)):
                    raise GipoError(
                        f"{self._data} holds {len(numbers)} episodes, its metadata say {expected}; copy it again"
                    )
                yield from self._foreign(file, numbers) if provenance is None else self._native(file, provenance)
        except GipoError:
            raise
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise GipoError(f"{self._data} is damaged or cut short: {_line(error)}; copy it again") from error

    @property
    def _data(self) -> Path:
        return self.path / "data" / "main_data.hdf5"

    @property
    def _metadata_path(self) -> Path:
        return self.path / "data" / "metadata.json"

    @property
    def _provenance_path(self) -> Path:
        return self.path / "data" / "gipo.json"

    def _native(self, file: "h5py.File", provenance: Provenance) -> Iterator[Raw]:
        provenance.check_count(sum(name.startswith("episode_") for name in file))
        for _, group in groupby(enumerate(provenance.origins), lambda item: item[1].key):
            segments = list(group)
            indices = [index for index, _ in segments]
            yield Raw(f"{self.path}, episode {indices[0]}", partial(_native, file, segments[0][1], indices))

    def _foreign(self, file: "h5py.File", numbers: list[int]) -> Iterator[Raw]:
        for number in numbers:
            yield Raw(f"{self.path}, episode {number}", partial(_foreign, file[f"episode_{number}"]))


def _read(group: "h5py.Group", wanted: dict[str, str]) -> Columns:
    """Columns of an episode; observations have one row more than the T others, infos are cut to T."""
    import h5py

    found: Columns = {}
    for ours, theirs in wanted.items():
        values = group.get(theirs)
        if not isinstance(values, h5py.Dataset):
            what = "nested; it must be one flat vector" if isinstance(values, h5py.Group) else "missing"
            raise GipoError(f"its {theirs} are {what}")
        try:
            found[ours] = values[()]
        except (OSError, RuntimeError) as error:
            raise GipoError(f"its {theirs} are damaged or cut short: {_line(error)}; copy the dataset again") from error
        if found[ours].ndim == 0 or found[ours].dtype.kind not in "biuf":
            raise GipoError(f"its {theirs} are no numbers for every step")
    length = len(found["reward"])
    for ours, values in found.items():
        rows = length + (ours == "observation" or wanted[ours].startswith("infos/"))
        if len(values) != rows:
            raise GipoError(f"its {wanted[ours]} have {len(values)} rows, {rows} must be there: steps are missing")
        if wanted[ours].startswith("infos/"):
            found[ours] = values[:length]
    for ours in {"policy_version", "valid", "step", "success"} & set(found):
        if found[ours].size != length:
            raise GipoError(f"its {wanted[ours]} have shape {found[ours].shape}; one value a step must be there")
        found[ours] = found[ours].reshape(length)
    observation = found.pop("observation")
    return {**found, "observation": observation[:-1], "next_observation": observation[1:]}


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _native(file: "h5py.File", origin: Origin, indices: list[int]) -> Trajectory:
    return joined(origin, [_read(file[f"episode_{index}"], NATIVE) for index in indices])


def _foreign(group: "h5py.Group") -> Trajectory:
    """Somebody's steps: valid, of an unknown policy; the end is a truncation unless it terminated."""
    there = {ours: theirs for ours, theirs in OPTIONAL.items() if theirs in group}
    if not {"latent", "log_prob"} <= set(there):
        there = {ours: theirs for ours, theirs in there.items() if ours not in ("latent", "log_prob")}
    columns = _read(group, REQUIRED | there)
    length = len(columns["reward"])
    success = columns.pop("success", None)
    terminated = columns["terminated"].astype(bool)
    truncated = columns["truncated"].astype(bool) & ~terminated
    truncated[-1:] |= ~terminated[-1:]
    columns |= {
        "action": columns["sent_action"],
        "step": columns.get("step", np.arange(length)),
        "policy_version": columns.get("policy_version", np.full(length, -1)),
        "valid": columns.get("valid", np.ones(length, bool)),
        "terminated": terminated,
        "truncated": truncated,
    }
    return Trajectory(columns, None, None if success is None else bool(success.any()), native=False)


def _interface(path: Path) -> Interface:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        observation, action = (json.loads(metadata[f"{name}_space"]) for name in ("observation", "action"))
        (observations,), (actions,) = _shape(observation), _shape(action)
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise GipoError(
            f"{path} describes no flat Box observations and actions: {type(error).__name__} {error}"
        ) from error
    return Interface(observations, actions, action_low=_bound(action, "low"), action_high=_bound(action, "high"))


def _shape(space: dict[str, Any]) -> tuple[int, ...]:
    if space["type"] != "Box":
        raise ValueError(f"a space {space['type']!r}")
    return tuple(map(int, space["shape"]))


def _bound(space: dict[str, Any], name: str) -> tuple[float, ...] | None:
    values = np.array(space.get(name, np.nan), float)
    return tuple(values.tolist()) if values.shape == tuple(space["shape"]) and np.isfinite(values).all() else None
