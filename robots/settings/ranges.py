"""What the numbers of a session may be: the command line refuses others, and so does whoever makes `Options`."""

RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 10**7),
    "speed": (1e-3, 1e3),
    "engage_seconds": (0, 60),
    "deadline": (0.1, 10**4),  # periods, as the next
    "max_age": (0.1, 10**4),
    "replan": (0, 10**4),
}
