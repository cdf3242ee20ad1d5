"""The default recipe, chosen by a race: every factor's alternatives against its default, on twelve tasks.

Rounds of short runs, each of which changes a few factors at once: a regression over all runs so far says what every
alternative adds to the area under the curve of success (evaluations every 20 000 steps), and the better half of the
alternatives stays in the race. The winner has the best alternative of every factor that adds more than its error. In
the final it meets the default with every task and seed at full length; that decides.

  gipo-study recipe --tasks reach-v3 window-close-v3 --rounds 2 --runs 24 --frames 40000

Writes rounds.csv and final.csv (every run: task, seed, scores, and its level of every factor) and recipe.md (what every
alternative adds, also those that lost; the winner; the final). A run that has come to its end is not made again: the
same command goes on where it was stopped.
"""

from gipo.commands.studies.recipe.study import add_arguments, run

__all__ = ["add_arguments", "run"]
