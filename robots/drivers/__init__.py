"""Robots that come with this package, and what is asked of every driver."""
