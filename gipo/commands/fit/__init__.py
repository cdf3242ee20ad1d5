"""`gipo fit | validate | test`: the command line, its parser, and which options of Lightning mean what."""
