"""The errors of this package: the command line prints them as one line and exits with code 2."""

from gipo.common.errors import UserError


class RobotError(UserError):
    """A robot that must not move, or an option that makes no sense. The message names the value and the fix."""


class LogError(UserError):
    """A log that cannot be written or must not be trusted. The message names the file and the byte, where known."""


class StrangeLog(LogError):
    """A file that is not a damaged log but none that this version reads: another writer's, or of a later schema."""
