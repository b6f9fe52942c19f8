"""All exceptions of the package, by cause.

Biom3dError
├── InputError        what the user gave; exit code 2
│   ├── ConfigError   a plan, configuration, option or table
│   └── DataError     an image, a label volume, a model folder
└── OutputError       a result could not be written (disk full, no permission); exit code 1

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
