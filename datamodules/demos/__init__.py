"""Demonstrations from scripted policies and recorded files, as a dataset that is ingested like any other."""
