"""The one error of this package: the command line prints it as one line and exits with code 2."""


class ArtifactError(ValueError):
    """An artifact that must not drive a robot. The message names what is wrong, where, and how to mend it."""
