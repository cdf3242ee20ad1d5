"""Gaussian Importance-sampling Policy Optimization (arXiv 2603.03955)."""

from gipo.common import moved

moved.install()
