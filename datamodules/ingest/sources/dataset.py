"""What datasets have in common: folders in a format of others, with a file of ours beside it where we exported them."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from datamodules.ingest.interface import Interface
from datamodules.ingest.sources.base import Description, Source
from datamodules.ingest.sources.export_sidecar import Provenance, read_provenance
from gipo.common.errors import UserError, first_line
from gipo.common.reading import stand_in_at


class Dataset(Source):
    """A folder in a format that others write, too."""

    mark: ClassVar[str]  # the file that tells that there is such a dataset
    metadata: ClassVar[str]
    sidecar: ClassVar[str]  # what our exports add

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Whether `path` is a folder with the file `mark`, which every dataset of this format has."""
        return (path / cls.mark).is_file()

    def files(self) -> dict[str, Path]:
        """Data and metadata, by their paths within the folder."""
        known = [self.path / name for name in (self.metadata, self.sidecar)]
        found = [*filter(Path.is_file, known), *self.data()]
        return {path.relative_to(self.path).as_posix(): path for path in found}

    @abstractmethod
    def data(self) -> list[Path]:
        """The files of data, in the order of what is in them."""

    @abstractmethod
    def interface(self) -> Interface:
        """What the dataset's own metadata say of its numbers."""

    def provenance(self) -> Provenance | None:
        """What our export says of where it comes from; None of others' datasets."""
        return read_provenance(self.path / self.sidecar)

    def describe(self) -> Description:
        """What our own metadata say, else those of the dataset."""
        provenance = self.provenance()
        return Description(self.interface()) if provenance is None else provenance.description


def unreadable(path: Path, kind: str, error: Exception) -> UserError:
    """The refusal of a file of data: what stands in its place, or else what its library says."""
    if instead := stand_in_at(path):
        return UserError(f"{path} is no {kind} file: {instead}")
    if "unable to lock file" in str(error):  # as HDF5 says
        return UserError(
            f"{path} cannot be locked: close what writes to it; where the file system has no locks, set "
            "HDF5_USE_FILE_LOCKING=FALSE"
        )
    return UserError(f"{path} is damaged or cut short: {first_line(error)}; copy it again")
