"""Biom3d 0.1.2 behind the step contract: `python -m biom3d_upstream.<step>`."""

__version__ = "0.1.0"
RELEASE = "0.1.2"  # of Biom3d; other releases have other commands
