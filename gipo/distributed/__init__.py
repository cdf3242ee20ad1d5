"""Several learners, a process each: what they agree on, how layers are split, what happens when one is lost."""
