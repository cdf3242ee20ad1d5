"""MetaWorld's fifty tasks, one recipe, rivals on the same goals: `study` is the command, the rest what it needs."""
