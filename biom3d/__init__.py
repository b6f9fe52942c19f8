"""Self-configuring 3D segmentation of microscopy and medical images: steps, engine, client; in Python: `biom3d.api`."""

__version__ = "0.1.0"
