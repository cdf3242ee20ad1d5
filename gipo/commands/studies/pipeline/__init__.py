"""The loop as the commands a user would type: processes, what of them is done already, stages, and what is told."""
