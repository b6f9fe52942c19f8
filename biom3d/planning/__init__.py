"""Facts about a data set -> a plan. Pure functions on numbers; no torch, no files."""
