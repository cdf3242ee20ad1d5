"""The errors of this package: the command line prints them as one line and exits with code 2."""


class RobotError(ValueError):
    """A robot that must not move, or an option that makes no sense. The message names the value and the fix."""


class LogError(ValueError):
    """A log that cannot be written or must not be trusted. The message names the file and the byte, where known."""
