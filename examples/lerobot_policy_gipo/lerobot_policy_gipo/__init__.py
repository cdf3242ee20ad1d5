"""GIPO artifacts as policies of LeRobot; LeRobot imports this by its name, and the policy `gipo` registers."""

from lerobot_policy_gipo.configuration_gipo import GIPOConfig

__all__ = ["GIPOConfig"]
