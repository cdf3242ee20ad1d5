"""Gradients whose bias and variance are exact: a small world, estimators of its gradient, their concentration."""
