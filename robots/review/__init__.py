"""Looking at logs: what they hold, whether they are whole and true, as a page, as other datasets."""
