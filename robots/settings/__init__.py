"""Options of a driver, as typed on a command line or written in a file, as what its arguments are annotated with."""
