"""What the rules need and Snakemake does not have: plain Python, standard library plus yaml and jsonschema."""

VERSION = "0.1.0"  # of biom3d; a test compares. Not imported, so that linting needs nothing but Snakemake.
