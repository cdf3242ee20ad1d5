"""Studies of the objectives themselves: what can be computed about them without a robot or a simulator."""
