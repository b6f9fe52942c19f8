"""Snakemake logger: a line for each job that starts, ends or fails, and our words for why; the full log is in a file.

Snakemake imports this package at every start, so its top level imports interface packages only.
"""

import sys
from dataclasses import dataclass, field
from logging import LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Each is an option `--logger-biom3d-NAME`."""

    ask: bool = field(
        default=False,
        metadata={"help": "Ask on a terminal before a trained model is replaced", "env_var": False, "required": False},
    )
    measure: bool = field(
        default=False,
        metadata={
            "help": "Train a few batches first where nobody knows how long trainings take here",
            "env_var": False,
            "required": False,
        },
    )


class LogHandler(LogHandlerBase):
    """Prints what `lines.Teller` makes of each event; Snakemake calls it from one thread."""

    def __post_init__(self) -> None:
        from snakemake_logger_plugin_biom3d.lines import Teller

        self._stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self._teller = Teller(
            with_commands=self.common_settings.printshellcmds,
            verbose=self.common_settings.verbose,
            quiet=frozenset(str(kind) for kind in self.common_settings.quiet or ()),
        )

    def emit(self, record: LogRecord) -> None:
        """Print what there is to say of an event."""
        try:
            text = self._teller.tell(record)
            if text is not None:
                print(text, file=self._stream, flush=True)
        except BrokenPipeError:
            raise
        except Exception:  # as logging wants it: an event that cannot be told ends no run
            self.handleError(record)

    @property
    def writes_to_stream(self) -> bool:
        """In place of Snakemake's own lines."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """The full log is Snakemake's own."""
        return False

    @property
    def has_filter(self) -> bool:
        """What is left out is decided in `lines`."""
        return True

    @property
    def has_formatter(self) -> bool:
        """The words are decided in `lines`."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """No picture is drawn."""
        return False
