"""What a policy would have done with the episodes of logs, estimated from them alone."""
