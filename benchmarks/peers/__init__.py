"""What a user could take instead of `gipo fit`, on the same task and cores: `python -m benchmarks.peers --help`."""
