"""People who help a policy inside an episode: what they steer with, and how the robot passes from one to the other."""
