"""A Feetech servo bus on a pseudo-terminal: what a driver sees when six STS3215 answer it."""
