"""Simulators without torch: what training and the simulated robot share."""
