"""Three policies of one robot, exported once."""

from pathlib import Path

import pytest

from deploy.runtime.policy import OnnxPolicy
from gipo.policies import GaussianPolicy
from tests.datamodules.ingest.builders import BINS, artifact
from tests.robots.artifacts import changed


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the artifacts."""
    folder = tmp_path_factory.mktemp("policies")
    token = artifact(folder / "token.onnx", bins=BINS)
    changed(token, folder / "newer.onnx", policy_version=8)
    artifact(folder / "gaussian.onnx", GaussianPolicy)
    return folder


@pytest.fixture(scope="session")
def token(folder: Path) -> OnnxPolicy:
    return OnnxPolicy.load(folder / "token.onnx")


@pytest.fixture(scope="session")
def newer(folder: Path) -> OnnxPolicy:
    return OnnxPolicy.load(folder / "newer.onnx")


@pytest.fixture(scope="session")
def gaussian(folder: Path) -> OnnxPolicy:
    return OnnxPolicy.load(folder / "gaussian.onnx")
