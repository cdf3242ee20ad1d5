"""The commands of `gipo`: the one room that sees all four packages."""
