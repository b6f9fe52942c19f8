"""Runs jobs in containers, on this machine or on a host over SSH. Knows nothing of images and of Snakemake."""
