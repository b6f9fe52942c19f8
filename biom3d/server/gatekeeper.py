"""Installs the gate, one file, where people's keys call it but cannot change it."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biom3d import __version__
from biom3d.config import read_yaml
from biom3d.errors import ConfigError
from biom3d.files import atomic_path, write_json
from biom3d.server.card import read_card, write_card
from biom3d.server.survey import GATE_FILE, SERVER_FILE, Facts

CARD = "card.yaml"  # in the working folder of 'server init'
INSTALLED = Path(".local", "lib", "biom3d", "biom3d-gate")  # below the home folder
PROGRAM = "biom3d_gate.py"  # beside it: the gate itself
# Python keeps a module compiled, and a script it compiles each time: two thirds of what a command takes.
START = """\
#!/usr/bin/python3 -IS
# The forced command of a key: starts {program} beside it.
import sys

sys.path.insert(0, {folder!r})
from {module} import main

sys.exit(main())
"""


def install_gate(home: Path) -> Path:
    """Put the gate into the account's home folder, unless the same one is there; return its path."""
    from biom3d.remote.table import TEMPLATES  # the whole client: only who installs a gate needs it
    from biom3d.server.gatefile import render_gate

    path = home / INSTALLED
    start = START.format(program=PROGRAM, folder=str(path.parent), module=PROGRAM.removesuffix(".py"))
    for file, text in ((path.with_name(PROGRAM), render_gate(TEMPLATES, __version__)), (path, start)):
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            with atomic_path(file) as temporary:
                temporary.write_text(text, encoding="utf-8")
                temporary.chmod(0o755)
    return path


def gate_words(gate: Path | None, home: Path, workdir: Path) -> list[str]:
    """Return the beginning of the forced command: the gate at `gate`, else ours, installed.

    Raises:
        ConfigError: it is not there, or its users could change it.
    """
    path = gate.expanduser().absolute() if gate else install_gate(home)
    if not path.is_file():
        raise ConfigError(f"--gate '{path}' is no file; leave it out to take the one that comes with biom3d")
    if path.resolve().is_relative_to(workdir.resolve()):
        raise ConfigError(f"the gate '{path}' lies in the working folder '{workdir}', where its users could change it")
    if not os.access(path, os.X_OK):
        raise ConfigError(f"--gate '{path}' cannot be run; chmod 755 it")
    return [str(path)]


def find_workdir(given: Path | None, home: Path) -> Path:
    """Return the working folder: the one given, else the one that `server init` noted; ConfigError if there is none."""
    workdir = given or Path(_noted(home).get("workdir", ""))
    if not workdir.is_absolute() or not workdir.is_dir():
        raise ConfigError(
            f"the working folder '{given or ''}' is not there; run 'biom3d server init DIR', or --workdir"
        )
    return workdir.resolve()


def find_config(given: Path | None, home: Path) -> Path | None:
    """Return the gate's configuration: the one given, else the one that `server init` wrote, else none."""
    if given is not None:
        if not given.is_file():
            raise ConfigError(f"--config '{given}' is no file; the head of the gate says what it holds")
        return given.expanduser().absolute()
    path = home / GATE_FILE
    return path if path.is_file() else None


def allow_images(config: Path | None, facts: Facts, more: Sequence[str]) -> list[str]:
    """Add to the gate's configuration the images of ours that are there now, and `more`; return what to tell."""
    if config is None:
        raise ConfigError("the gate has no configuration; run 'biom3d server init DIR' first, or --config FILE")
    settings = read_yaml(config)
    before = [str(image) for image in settings.get("images", [])]
    after = list(dict.fromkeys([*before, *facts.image_ids, *more]))
    if after != before:
        write_json(config, {**settings, "images": after})
        config.chmod(0o600)
    known = dict(zip(facts.image_ids, facts.images, strict=True))
    return [f"allowed: {known.get(image, image)}" + ("" if image in before else "  (new)") for image in after]


def allow_steps(config: Path | None, facts: Facts, environment: str) -> str:
    """Have the gate run steps by hand, in the newest image of ours or the environment; return in which."""
    if config is None:
        raise ConfigError("the gate has no configuration; run 'biom3d server init DIR' first")
    settings = read_yaml(config)
    known = [name for name in facts.images if "/cpu:" in name] or list(facts.images)
    if settings.get("engine_socket") and not known:
        raise ConfigError(
            "--entry-point: no image of ours is there for steps by hand; bring one: biom3d images build cpu"
        )
    if not settings.get("engine_socket") and not (settings.get("venv") and environment):
        raise ConfigError("--entry-point: the gate allows neither an engine nor an environment; run 'init' with --env")
    where = known[0] if settings.get("engine_socket") else environment
    write_json(config, {**settings, "entry_point": where})
    config.chmod(0o600)
    return where


def own_card(workdir: Path | None, home: Path) -> Path | None:
    """Write a card that names a person's own folder into it, where that is not everybody's; return its path."""
    common = Path(_noted(home).get("workdir", ""))
    if workdir is None or workdir == common or not (common / CARD).is_file():
        return None
    path = workdir / CARD
    write_card(dataclasses.replace(read_card(common / CARD), workdir=str(workdir)), path)
    return path


def read_settings(home: Path) -> dict[str, Any]:
    """Return the gate's configuration that `server init` wrote; empty without one."""
    config = find_config(None, home)
    return read_yaml(config) if config else {}


def find_log(home: Path) -> Path:
    """Return the gate's log: where its configuration says, else in the home folder."""
    name = str(read_settings(home).get("log") or "")
    return home / (name.removeprefix("~/") or ".biom3d-gate.log")


def _noted(home: Path) -> dict[str, Any]:
    path = home / SERVER_FILE
    return read_yaml(path) if path.is_file() else {}
