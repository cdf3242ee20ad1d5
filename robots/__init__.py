"""Run a policy on a robot and log what happened. Never imports torch."""

from gipo.common import moved

moved.install()
