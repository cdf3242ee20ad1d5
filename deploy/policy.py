"""`OnnxPolicy`, the policy on a robot, by the name under which programs import it."""

from deploy.runtime.policy import Decision, OnnxPolicy

__all__ = ["Decision", "OnnxPolicy"]
