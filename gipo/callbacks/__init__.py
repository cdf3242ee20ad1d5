"""What watches a run of `gipo fit`: figures, curves, loggers, the last checkpoint, and the folder of all that."""
