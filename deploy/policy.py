"""`OnnxPolicy`, the policy on a robot, by the name under which programs import it."""

from deploy.runtime.acting import Decision
from deploy.runtime.policy import OnnxPolicy

__all__ = ["Decision", "OnnxPolicy"]
