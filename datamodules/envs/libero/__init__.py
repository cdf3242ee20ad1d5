"""LIBERO: tasks by name, state-only and camera environments, scripted demonstrations. Needs the extra `libero`."""
