"""What a learner samples from: a buffer of its own transitions, logged ones, and their advantages."""
