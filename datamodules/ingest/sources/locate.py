"""Finds the sources at paths, by what is there."""

from collections.abc import Iterable
from pathlib import Path

from datamodules.ingest.sources.base import Source
from datamodules.ingest.sources.dataset import Dataset
from datamodules.ingest.sources.lerobot import LeRobotSource
from datamodules.ingest.sources.mcap import McapSource
from datamodules.ingest.sources.minari import MinariSource
from gipo.common.errors import UserError
from robots.log import files_below, without_strangers

DATASETS: tuple[type[Dataset], ...] = (LeRobotSource, MinariSource)
KINDS: tuple[type[Source], ...] = (McapSource, *DATASETS)


def source_at(path: Path) -> Source:
    """The source at exactly this path.

    Raises:
        UserError: when there is none.
    """
    for kind in KINDS:
        if kind.is_at(path):
            return kind(path)
    raise _nothing(path)


def find_sources(paths: Iterable[str | Path]) -> tuple[list[Source], list[str]]:
    """The sources at these paths, in order; a folder stands for the logs below it, or else the datasets below it.

    The second list says which files of a folder are left out, because they are no logs of ours or of a newer schema.

    Raises:
        UserError: when a path is, or holds, none.
    """
    found: list[Source] = []
    left_out: list[str] = []
    for path in map(Path, paths):
        sources, strange = _sources(path)
        found += sources
        left_out += strange
    if not found:
        raise UserError("no source is named; name logs, folders of logs, or datasets")
    return found, left_out


def _sources(path: Path) -> tuple[list[Source], list[str]]:
    if not path.is_dir() or any(kind.is_at(path) for kind in KINDS):
        return [source_at(path)], []
    logs, strange = without_strangers(files_below(path))
    if logs:
        return [McapSource(each) for each in logs], strange
    datasets = {each.parent.parent for kind in DATASETS for each in path.rglob(kind.mark)}
    if strange and not datasets:
        raise UserError("; ".join(strange))
    return [source_at(each) for each in sorted(datasets)] or [source_at(path)], strange


def _nothing(path: Path) -> UserError:
    if not path.exists():
        return UserError(f"{path} does not exist")
    if (path / "data" / "metadata.json").is_file():
        return UserError(
            f"{path} is a Minari dataset whose data are not in HDF5; write it again with minari and data_format='hdf5'"
        )
    return UserError(
        f"{path} is no source: neither a robot log (MCAP) nor a folder with *.mcap files below it, no LeRobot v3 "
        "dataset (meta/info.json), no Minari dataset (data/main_data.hdf5)"
    )
