"""The images that steps run in: one table -> plans -> images, and a name for each that changes with its content."""
