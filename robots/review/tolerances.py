"""How far a log may be from what is recomputed of it."""

TOLERANCE = 1e-5  # nats; what a logged log-prob may differ from the recomputed one …
ROUNDINGS = 4  # … or so many of float32's, where that is more: a person may do what the policy would hardly ever
VIDEO_TOLERANCE = 0.5  # nats; what decoding a video may change of the log-prob of a step
OFF = 1e-4  # of an action's range; what a logged action may differ from the one that is sampled again
# Of the steps; where another processor rounds a probability otherwise, a noise next to it draws the token beside.
OFF_SHARE = 1e-3
