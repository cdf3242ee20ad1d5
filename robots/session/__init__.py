"""A session: episodes of one policy on one robot, with its log, its status line and a person to end it."""
