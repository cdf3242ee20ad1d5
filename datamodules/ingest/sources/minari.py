"""Minari datasets (HDF5) as a source: our exports, and anybody's with flat observations and actions.

Minari keeps T rewards and T + 1 observations and infos: row 0 is what the reset gave, and the info of step t is row
t + 1. Infos of T rows, which other writers have, are those of the steps.
"""

import json
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datamodules.ingest.interface import Interface
from datamodules.ingest.pictures import PictureWriter
from datamodules.ingest.sources.base import Raw, Trajectory, without_half
from datamodules.ingest.sources.dataset import Dataset, unreadable
from datamodules.ingest.sources.export_sidecar import Origin, Provenance, joined
from datamodules.ingest.sources.flags import ends, flags
from datamodules.ingest.sources.minari_spaces import interface_of
from gipo.common.errors import UserError, first_line
from gipo.common.reading import read_text
from gipo.common.simulators.gymnasium_info import SUCCESS
from gipo.common.transition import COLUMNS

if TYPE_CHECKING:
    import h5py

# Our columns by those of an episode's group: of our exports, of which older ones lack some, and of other writers.
NATIVE = {field.name: field.minari for field in COLUMNS if field.minari and not field.later}
LATER = {field.name: field.minari for field in COLUMNS if field.minari and field.later}
REQUIRED = {name: theirs for name, theirs in NATIVE.items() if not theirs.startswith("infos/")}
OPTIONAL = {field.name: field.minari for field in COLUMNS if field.foreign}
ONE_VALUE = {field.name for field in COLUMNS if not field.shape}
OUTCOME = tuple(f"infos/{key}" for key in SUCCESS)  # the first that is there
INFOS_AHEAD = 1  # format of our exports whose infos stood in row t
Columns = dict[str, np.ndarray]


class MinariSource(Dataset):
    """A dataset whose data are in HDF5."""

    kind = "minari"
    mark = "data/main_data.hdf5"
    metadata = "data/metadata.json"
    sidecar = "data/gipo.json"

    def data(self) -> list[Path]:
        """The one file of data."""
        return [self.path / self.mark]

    def interface(self) -> Interface:
        """What the spaces of the dataset say."""
        return interface_of(self.path / self.metadata)

    def episodes(self, pictures: PictureWriter) -> Iterator[Raw]:
        """Every episode; the segments that one was exported as are one again."""
        provenance, data = self.provenance(), self.path / self.mark
        import h5py

        try:
            with h5py.File(data, "r") as file:
                _refuse_outside(file, data)
                numbers = sorted(int(name.removeprefix("episode_")) for name in file if name.startswith("episode_"))
                expected = json.loads(read_text(self.path / self.metadata))["total_episodes"]
                if len(numbers) != expected:
                    raise UserError(f"{data} holds {len(numbers)} episodes, its metadata say {expected}; copy it again")
                if missing := sorted(set(range(len(numbers))) - set(numbers)):
                    raise UserError(
                        f"{data} holds {len(numbers)} episodes, and none is called episode_{missing[0]}, but one "
                        f"episode_{numbers[-1]}; rename them: their numbers must go from 0 on without a gap"
                    )
                yield from self._foreign(file, numbers) if provenance is None else self._native(file, provenance)
        except UserError:
            raise
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise unreadable(data, "HDF5", error) from error

    def _native(self, file: "h5py.File", provenance: Provenance) -> Iterator[Raw]:
        provenance.check_count(sum(name.startswith("episode_") for name in file))
        for _, group in groupby(enumerate(provenance.origins), lambda item: item[1].key):
            segments = list(group)
            indices = [index for index, _ in segments]
            ahead = provenance.format == INFOS_AHEAD
            yield Raw(f"{self.path}, episode {indices[0]}", partial(_native, file, segments[0][1], indices, ahead))

    def _foreign(self, file: "h5py.File", numbers: list[int]) -> Iterator[Raw]:
        infos: set[str] = set()
        for number in numbers:
            group = file[f"episode_{number}"]
            infos |= _infos(group)
            yield Raw(f"{self.path}, episode {number}", partial(_foreign, group))
        if unread := sorted(infos - {*OUTCOME, *OPTIONAL.values()}):
            self.notes.append(f"{self.path}: not read: {', '.join(unread)}")


def _read(group: "h5py.Group", wanted: dict[str, str], infos_ahead: bool = False) -> Columns:
    """Columns of an episode, [T, …]; `infos_ahead`: the info of step t is row t of T + 1."""
    import h5py

    if not isinstance(group, h5py.Group):
        raise UserError("it is no group of observations, actions and rewards")
    found: Columns = {}
    for ours, theirs in wanted.items():
        values = group.get(theirs)
        if not isinstance(values, h5py.Dataset):
            what = "nested; it must be one flat vector" if isinstance(values, h5py.Group) else "missing"
            raise UserError(f"its {theirs} are {what}")
        try:
            found[ours] = np.asarray(values[()])
        except (OSError, RuntimeError, MemoryError) as error:  # a damaged shape may ask for any amount
            raise UserError(
                f"its {theirs} are damaged or cut short: {first_line(error)}; copy the dataset again"
            ) from error
        if found[ours].ndim == 0 or found[ours].dtype.kind not in "biuf":
            raise UserError(f"its {theirs} are no numbers for every step")
    length = len(found["reward"])
    for ours, values in found.items():
        info = wanted[ours].startswith("infos/")
        rows = length + (ours == "observation" or info)
        if len(values) != rows and not (info and len(values) == length):
            raise UserError(f"its {wanted[ours]} have {len(values)} rows, {rows} must be there: steps are missing")
        if info and len(values) == rows:
            found[ours] = values[:length] if infos_ahead else values[1:]
    for ours in ONE_VALUE & set(found):
        if found[ours].size != length:
            raise UserError(f"its {wanted[ours]} have shape {found[ours].shape}; one value a step must be there")
        found[ours] = found[ours].reshape(length)
    observation = found.pop("observation")
    return {**found, "observation": observation[:-1], "next_observation": observation[1:]}


def _there(group: "h5py.Group", wanted: dict[str, str]) -> dict[str, str]:
    try:
        return {ours: theirs for ours, theirs in wanted.items() if theirs in group}
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"it is damaged or cut short: {first_line(error)}; copy the dataset again") from error


def _infos(group: "h5py.Group") -> set[str]:
    """Places of what an episode says beside Minari's own columns; of one that cannot be read, its reader tells."""
    try:
        return set(map("infos/{}".format, group["infos"].keys()))
    except (AttributeError, TypeError, ValueError, OSError, RuntimeError, KeyError):
        return set()


def _native(file: "h5py.File", origin: Origin, indices: list[int], infos_ahead: bool) -> Trajectory:
    groups = [file[f"episode_{index}"] for index in indices]
    return joined(origin, [_read(group, NATIVE | _there(group, LATER), infos_ahead) for group in groups])


def _foreign(group: "h5py.Group") -> Trajectory:
    """Somebody's steps: valid, of an unknown policy; the end is a truncation unless it terminated."""
    there = without_half(_there(group, OPTIONAL))
    if judged := _there(group, {name: name for name in OUTCOME}):
        there["success"] = next(iter(judged))
    columns = _read(group, REQUIRED | there)
    length = len(columns["reward"])
    success = flags("success", columns.pop("success"), length) if "success" in columns else None
    known = {name: flags(REQUIRED[name], columns[name], length) for name in ("terminated", "truncated")}
    terminated, truncated = ends(known, length)
    columns |= {
        "action": columns["sent_action"],
        "step": np.arange(length),
        "terminated": terminated,
        "truncated": truncated,
    }
    if "valid" in columns:
        columns["valid"] = flags(OPTIONAL["valid"], columns["valid"], length)
    return Trajectory(columns, None, None if success is None else bool(success.any()), native=False)


def _refuse_outside(group: "h5py.Group", path: Path) -> None:
    """Refuse data that stand in another file: a store is known by the content of this one."""
    import h5py

    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            raise UserError(f"{path}: {group.name}/{name} is a link to another file; copy its data into this one")
        found = group[name]
        if isinstance(found, h5py.Group):
            _refuse_outside(found, path)
        elif isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
            raise UserError(f"{path}: the data of {found.name} stand in another file; copy them into this one")
