"""Environments, replay and the Lightning data modules that feed the learner."""
