"""Fixtures of the data modules' tests."""

import pytest
import torch

from datamodules.envs import Task, spaces_of
from gipo.policies import Policy, TokenPolicy


@pytest.fixture(scope="module")
def policy() -> Policy:
    """A small token policy for MetaWorld's arm."""
    env = Task("reach-v3").make(1, 0)
    torch.manual_seed(0)
    made = TokenPolicy(spaces_of(env), bins=8)
    env.close()
    return made
