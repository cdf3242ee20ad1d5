"""The policy on the robot: numpy and ONNX Runtime, no torch."""

import numpy as np
import onnxruntime

from deploy.runtime.acting import ActingPolicy
from deploy.runtime.check import Artifact, Report, check_bytes, check_file, naming, silent
from deploy.runtime.inference import ending, new_session, rows_at_once, run
from gipo.common.files import PathLike

GOLDEN_SECONDS = 60.0  # a small file must not keep a robot busy for hours


class OnnxPolicy(ActingPolicy):
    """A verified artifact, run by ONNX Runtime in this process.

    Args:
        artifact: what `deploy.runtime.check` found good.
        threads: of ONNX Runtime inside one inference; one has the shortest tail.
        report: called with each check that passes.

    Raises:
        UserError: when ONNX Runtime refuses the graph, or the golden vectors do not come out.
    """

    def __init__(self, artifact: Artifact, threads: int = 1, report: Report = silent):
        super().__init__(artifact.manifest, artifact.policy_id)
        self._options = onnxruntime.RunOptions()
        self._session = new_session(artifact.data, threads)
        report("runtime", f"onnxruntime {onnxruntime.__version__} takes the graph, {threads} thread(s)")
        with ending(self._options, GOLDEN_SECONDS, "its golden vectors"):
            report("golden", self.replay_golden())

    @classmethod
    def load(
        cls, path: PathLike, require_id: str | None = None, threads: int = 1, report: Report = silent
    ) -> "OnnxPolicy":
        """Read, verify and arm an artifact.

        Args:
            path: the file.
            require_id: the policy id it must have, or a file that lists the ids allowed.
            threads: of ONNX Runtime inside one inference.
            report: called with the name and the finding of each check that passes.

        Raises:
            UserError: at the first check that fails; nothing was run but, at most, the golden vectors.
        """
        artifact = check_file(path, require_id, report)
        with naming(path):
            return cls(artifact, threads, report)

    @classmethod
    def from_bytes(cls, data: bytes) -> "OnnxPolicy":
        """Verify and arm an artifact that is in memory, as `load` does with a file."""
        return cls(check_bytes(data))

    def _outputs(self, names: tuple[str, ...], rows: np.ndarray, noise: np.ndarray) -> list[np.ndarray]:
        at_once = rows_at_once(self.manifest.precision, self._layout)
        return run(self._session, names, rows, noise, at_once, self._layout, self._options)
