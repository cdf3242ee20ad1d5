"""Simulators: tasks by name, the contract of a simulation, and many simulators behind one environment."""
