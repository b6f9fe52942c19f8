"""All commands that a client may have run on a server, in one table: what a gate lets through is made from it."""

from biom3d.remote import claims, commands, gpus, podman, processes, questions, venv_lines, watch
from biom3d.remote.template import Template

TEMPLATES: tuple[Template, ...] = (
    *commands.TEMPLATES,
    *claims.TEMPLATES,
    *gpus.TEMPLATES,
    *processes.TEMPLATES,
    *podman.TEMPLATES,
    *questions.TEMPLATES,
    *venv_lines.TEMPLATES,
    *watch.TEMPLATES,
)
