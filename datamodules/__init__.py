"""Environments, replay and the Lightning data modules that feed the learner."""

from gipo.common import moved

moved.install()
