"""The error that a user can mend, which every package's own errors derive from."""


class UserError(ValueError):
    """Bad input, or a world that does not allow what was asked. The message names what, where, and the way out."""
