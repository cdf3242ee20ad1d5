"""From paths to sources, by what is there."""

from collections.abc import Iterable
from pathlib import Path

from datamodules.ingest.lerobot import LeRobotSource
from datamodules.ingest.mcap import McapSource
from datamodules.ingest.minari import MinariSource
from datamodules.ingest.source import Source
from gipo.errors import GipoError

KINDS: tuple[type[Source], ...] = (McapSource, LeRobotSource, MinariSource)


def source_at(path: Path) -> Source:
    """The source at exactly this path.

    Raises:
        GipoError: when there is none.
    """
    for kind in KINDS:
        if kind.is_at(path):
            return kind(path)
    raise _nothing(path)


def find_sources(paths: Iterable[str | Path]) -> list[Source]:
    """The sources at these paths, in order; a folder stands for the logs below it, or else the datasets below it.

    Raises:
        GipoError: when a path is, or holds, none.
    """
    found = [source for path in paths for source in _sources(Path(path))]
    if not found:
        raise GipoError("no source is named; name logs, folders of logs, or datasets")
    return found


def _sources(path: Path) -> list[Source]:
    try:
        if path.is_dir() and not any(kind.is_at(path) for kind in KINDS):
            logs = sorted(each for each in path.rglob("*.mcap") if each.is_file())
            below = logs or sorted(
                {
                    *(each.parent.parent for each in path.rglob("meta/info.json")),
                    *(each.parent.parent for each in path.rglob("data/main_data.hdf5")),
                }
            )
            if below:
                return [source_at(each) for each in below]
        return [source_at(path)]
    except OSError as error:
        raise GipoError(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def _nothing(path: Path) -> GipoError:
    if not path.exists():
        return GipoError(f"{path} does not exist")
    return GipoError(
        f"{path} is no source: neither a robot log (MCAP) nor a folder with *.mcap files below it, no LeRobot v3 "
        "dataset (meta/info.json), no Minari dataset (data/main_data.hdf5)"
    )
