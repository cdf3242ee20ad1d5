"""Acting in simulators: in this process, in worker processes or on Ray, for training and for evaluation."""
