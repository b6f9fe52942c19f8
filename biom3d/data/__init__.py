"""Normalise, resample, cut patches, augment."""
