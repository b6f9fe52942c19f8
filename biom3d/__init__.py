"""Self-configuring 3D segmentation of microscopy and medical images: steps, engine and client."""

__version__ = "0.1.0"
