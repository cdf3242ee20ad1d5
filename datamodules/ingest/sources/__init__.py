"""Kinds of logged data: our robot logs (MCAP), LeRobot v3, Minari; found by what lies at a path."""
