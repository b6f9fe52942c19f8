"""The report page: what a project's folder tells of a run, as one HTML file that needs nothing else."""
