"""EnvPool's MetaWorld against MetaWorld's own: which tasks are the same in both."""
