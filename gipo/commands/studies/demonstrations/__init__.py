"""Ten demonstrations, a clone, and what post-training adds to it, by objective and age of the data.

For every task and seed: `gipo-demos` makes demonstrations of the task's scripted policy; bc.yaml clones them;
from_demonstrations.yaml post-trains the same clone by every objective, from a buffer of few iterations and of many.
The clone and what came of it are evaluated once each, at their ends, on the same goals, by which nothing was chosen.

  gipo-study demonstrations --tasks assembly-v3 coffee-pull-v3 --objectives GIPO PPOClip SAPO --buffers 2 16

Writes runs.csv (every run: success of the clone, and after), demonstrations.csv (for every task, buffer and objective
the mean of both, and the gain, in pairs of one seed, with 95 % intervals), demonstrations.png and demonstrations.md.
All tasks of one seed come before the next, and tables are written after each. A finished run is not made again, an
interrupted one goes on. --runs FILE makes tables and figure of such a runs.csv again, and runs nothing.
"""

from gipo.commands.studies.demonstrations.study import add_arguments, run

__all__ = ["add_arguments", "run"]
