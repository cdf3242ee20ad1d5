"""Finds the sources at paths, by what is there."""

from collections.abc import Iterable
from pathlib import Path

from datamodules.ingest.sources.base import Source
from datamodules.ingest.sources.dataset import Dataset
from datamodules.ingest.sources.lerobot import LeRobotSource
from datamodules.ingest.sources.mcap import McapSource
from datamodules.ingest.sources.minari import MinariSource
from gipo.common.errors import UserError
from robots.log import files_below, folders_below, out_of_reach, without_strangers

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

    The second list says what of a folder is left out: files that are no logs of ours or of a newer schema, what cannot
    be looked into, and datasets beside logs, which as a rule are exports of them.

    Raises:
        UserError: when a path is, or holds, none.
    """
    found: list[Source] = []
    left_out: list[str] = []
    beside: list[Path] = []
    for path in map(Path, paths):
        sources, strange, datasets = _sources(path)
        found += sources
        left_out += strange
        beside += datasets
    if not found:
        raise UserError("no source is named; name logs, folders of logs, or datasets")
    taken = {source.path.resolve() for source in found}
    unnamed = dict.fromkeys(each for each in beside if each.resolve() not in taken)
    return found, left_out + [
        f"{each}: a dataset in a folder of logs; name it too unless it is an export of them" for each in unnamed
    ]


def _sources(path: Path) -> tuple[list[Source], list[str], list[Path]]:
    """The sources that a path stands for, the files that it does not, and the datasets beside the logs in it."""
    if not path.is_dir() or any(kind.is_at(path) for kind in KINDS):
        return [source_at(path)], [], []
    logs, strange = without_strangers(files_below(path))
    strange += [f"{each}: {reason}" for each, reason in out_of_reach(path)]
    inner = list(folders_below(path))
    datasets = sorted({each.parent.parent for kind in DATASETS for one in inner for each in one.glob(kind.mark)})
    if logs:
        return [McapSource(each) for each in logs], strange, datasets
    if strange and not datasets:
        raise UserError("; ".join(strange))
    return [source_at(each) for each in datasets] or [source_at(path)], strange, []


def _nothing(path: Path) -> UserError:
    if not path.exists():
        return UserError(f"{path} does not exist")
    if (path / "data" / "metadata.json").is_file():
        return UserError(
            f"{path} is a Minari dataset whose data are not in HDF5; write it again with minari and data_format='hdf5'"
        )
    inside = (each for each in path.absolute().parents for kind in DATASETS if kind.is_at(each))
    if whole := next(inside, None):
        return UserError(f"{path} is a part of the dataset {whole}; name that folder")
    return UserError(
        f"{path} is no source: neither a robot log (MCAP) nor a folder with *.mcap files below it, no LeRobot v3 "
        "dataset (meta/info.json), no Minari dataset (data/main_data.hdf5)"
    )
