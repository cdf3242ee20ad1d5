"""The one error of this package: the command line prints it as one line and exits with code 2."""

from gipo.common.errors import UserError


class ArtifactError(UserError):
    """An artifact that must not drive a robot. The message names what is wrong, where, and how to mend it."""
