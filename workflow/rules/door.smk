# Comes before Snakemake reads config/config.yaml: a file that would fill the memory is refused here.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(str(workflow.current_basedir)).parent / "lib"))

from biom3d_workflow.settings import refuse_endless


class ConfigurationError(WorkflowError):
    """What is wrong with config.yaml and the table, for people."""

    # Snakemake would print the line of *this* file below the message; the lines that matter are in it.
    __traceback__ = property(lambda self: None, lambda self, value: None)


try:
    refuse_endless("config/config.yaml")
except ValueError as error:
    raise ConfigurationError(str(error)) from None
