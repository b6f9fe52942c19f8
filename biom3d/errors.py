"""All exceptions of the package, by cause.

Biom3dError
├── InputError        what the user gave; exit code 2
│   ├── ConfigError   a plan, configuration, option or table
│   └── DataError     an image, a label volume, a model folder
├── OutputError       a result could not be written (disk full, no permission); exit code 1
├── HostError         a machine that runs jobs: not reached, refuses, lacks something; exit code 1, as all below
│   └── LostConnection    was reached before
├── ContainerError    a container engine, an image, a container
├── TransferError     files did not arrive whole
└── JobError          a job ran and failed

A message says what happened, where, and what to do: `train: ... ; set ...`.
"""


class Biom3dError(Exception):
    """Base of our errors: shown as one message without a traceback."""

    exit_code = 1


class InputError(Biom3dError):
    """Something the user gave cannot be used as it is."""

    exit_code = 2


class ConfigError(InputError):
    """A plan, a configuration, an option or a table is wrong."""


class DataError(InputError):
    """An image, a label volume or a model folder is wrong."""


class OutputError(Biom3dError):
    """A result could not be written; what was there before is untouched."""


class HostError(Biom3dError):
    """A machine that runs jobs cannot be reached, refuses, or lacks something."""


class LostConnection(HostError):  # noqa: N818 - says what happened
    """A host or its container engine, reached before, does not answer now; what runs there goes on."""


class ContainerError(Biom3dError):
    """A container engine, an image or a running container is at fault."""


class TransferError(Biom3dError):
    """Files did not arrive whole, here or on the host."""


class JobError(Biom3dError):
    """A job ran and failed; its log says why."""
