"""Gaussian Importance-sampling Policy Optimization (arXiv 2603.03955)."""
