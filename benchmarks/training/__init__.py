"""Whole training runs, timed and weighed from outside: marks, the clock that makes them, the processes of a run."""
