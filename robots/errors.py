"""Errors of logs that are told apart from others, which are all `gipo.common.errors.UserError`."""

from gipo.common.errors import UserError


class LogError(UserError):
    """A log that cannot be written or must not be trusted. The message names the file and the byte, where known."""


class StrangeLog(LogError):
    """A file that is not a damaged log but none that this version reads: another writer's, or of a later schema."""
