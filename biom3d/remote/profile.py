"""The user's Snakemake profile of a host: written once by `remote add`, read by Snakemake and by all our verbs."""

import dataclasses
import json
import os
import re
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from biom3d.config import from_mapping, read_yaml
from biom3d.errors import ConfigError
from biom3d.files import write_text
from biom3d.remote.claims import KEEPS, Keep
from biom3d.remote.host import Host
from biom3d.remote.local import LocalHost
from biom3d.remote.runtime import KINDS, PODMAN, VENV, Runtime
from biom3d.remote.ssh_config import SSHSettings, parse_jump, plan_route

if typing.TYPE_CHECKING:
    from biom3d.remote.ssh import SSHHost

LOCAL = "local"
LOCAL_FOLDER = Path(".snakemake", "biom3d")  # jobs on this machine: on the file system of the outputs
FILE = "profile.yaml"
EXECUTOR = "host"
OLD_EXECUTOR = "ssh"  # so it was called until another plugin of that name was announced
PREFIX = "host-"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
OTHER_FILE = re.compile(r"(profile|config)(\.v\d+\+)?\.yaml")  # what Snakemake reads of a profile's folder
# Paths of the host. Snakemake takes every value of a profile for a path of this machine: it replaces variables and `~`,
# and looks whether it is there, which may be forbidden. With this word before it, it is nothing here.
ON_HOST = ("workdir", "venv", "engine_socket")
THERE = "there:"
PLAIN = re.compile(r"[A-Za-z0-9_./~@-]+")

# Keys that have nothing to do with the host, as in profiles/docker: value and reason.
COMMON: dict[str, tuple[Any, str]] = {
    "executor": ("host", "our plugin runs jobs in containers, here or on a host over SSH"),
    "jobs": (100, "as many at once as there are cores, memory and GPUs for; the others wait"),
    "nolock": (True, "the executor has a lock of its own, which ends with it: nothing to unlock after a power cut"),
    "keep-going": (True, "a bad data set fails alone; the table at the end says why"),
    "rerun-incomplete": (True, "after a failure, Ctrl-C or a lost terminal the same command goes on"),
    "logger": ("biom3d", "our plugin: a line for each job, our words for why one failed; the full log is in a file"),
    "printshellcmds": (False, "`-p` shows commands, and with -n the full list of jobs"),
    "show-failed-logs": (False, "jobs already show what they log"),
}
# Keys of the host: an example for those that are not set, and the reason.
OWN: dict[str, tuple[Any, str]] = {
    "address": ("gpu1.example.org", "where jobs run: a name of ~/.ssh/config, an address, or 'local' (this machine)"),
    "port": (22, "of the SSH server; not set: that of ~/.ssh/config, else 22"),
    "user": ("lab", "account on the host; not set: that of ~/.ssh/config, else yours here"),
    "key_file": ("~/.ssh/id_ed25519", "private key; not set: those of ~/.ssh/config, the agent, ~/.ssh/id_*"),
    "jump": ("lab@gate.example.org:22", "hosts on the way, with commas between; not set: ~/.ssh/config's ProxyJump"),
    "config": ("~/.ssh/config", "read instead of ~/.ssh/config"),
    "workdir": (
        "biom3d",
        f"folder on the host for data and jobs, below your home there, or '{THERE}/absolute' ('{THERE}': no path here)",
    ),
    "parallel": (4, "connections that carry big transfers"),
    "bandwidth_mb_s": (50, "limit of the transfers in MB/s, each way, where others share the line; not set: none"),
    "check_store": (True, "hash again what the host has before it is used: finds damage of its disk, takes time"),
    "image": ("biom3d-workflow/cpu:TAG", "for rules without a container of their own"),
    "gpus": ("0,1", "GPUs that jobs may use, as nvidia-smi counts them; not set: all"),
    "engine_socket": (
        "/run/user/1000/podman/podman.sock",
        "of the container engine; not set: DOCKER_HOST, Docker's own",
    ),
    "runtime": ("docker", "what runs jobs there: docker, podman, or venv (a Python environment, without containers)"),
    "venv": (
        "biom3d/env",
        "with runtime venv: the environment's folder; not set: env in workdir, here: this Python's",
    ),
    "keep": (
        "failed",
        "folders of jobs that stay there: failed (to go on in; not set: so), none (a failed job begins anew),"
        " all (also of jobs that ended well, as ID.kept); 'biom3d remote clean' removes old ones",
    ),
}


@dataclass(frozen=True)
class Settings:
    """What a profile says of its host: the keys `host-*`, which are the executor plugin's settings."""

    address: str = LOCAL
    port: int | None = None
    user: str | None = None
    key_file: str | None = None
    jump: str | None = None
    config: str | None = None
    workdir: str | None = None
    parallel: int | None = None
    bandwidth_mb_s: float | None = None
    check_store: bool = False
    image: str | None = None
    gpus: str | None = None
    engine_socket: str | None = None
    runtime: str | None = None
    venv: str | None = None
    keep: str | None = None


def profiles_folder() -> Path:
    """Return where `snakemake --profile NAME` looks for the user's own profiles."""
    try:
        from platformdirs import user_config_dir
    except ImportError:  # comes with Snakemake, which the verbs can do without
        return Path(os.environ.get("XDG_CONFIG_HOME", "").strip() or Path("~/.config").expanduser()) / "snakemake"
    return Path(user_config_dir("snakemake", "snakemake"))


def write_profile(name: str, settings: Settings, is_replaced: bool = False) -> Path:
    """Write the user's profile `name`, whole or not at all; return its path.

    Raises:
        ConfigError: a setting cannot be used, or there is a profile of this name and it is not to be replaced.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is no name for a profile; wanted letters, digits, '_', '.' and '-'")
    settings = _from_anywhere(settings)
    check(settings)
    settings = _protected(settings)
    path = profiles_folder() / name / FILE
    there = sorted(file.name for file in path.parent.glob("*.yaml") if OTHER_FILE.fullmatch(file.name))
    if there and not is_replaced:
        raise ConfigError(
            f"there is a profile '{name}' already: '{path.parent / there[0]}'; choose another name or --replace"
        )
    others = [file for file in there if file != FILE]
    if others:
        raise ConfigError(
            f"'{path.parent / others[0]}' would be read too, or instead; remove it or choose another name"
        )
    write_text(path, render_profile(name, settings))
    return path


def check(settings: Settings) -> None:
    """Raise ConfigError for what cannot be right; nothing is connected."""
    _check_words(settings)
    _refuse_expanded(settings)
    if "@" in settings.address:
        raise ConfigError(f"host '{settings.address}' has an '@'; give the account with --user")
    if settings.address == LOCAL:
        _refuse_for_local(settings)
        return
    _check_numbers(settings)
    _refuse_port_in_host(settings.address)
    ssh = ssh_settings(settings)
    for user in (ssh.user, *(hop.user for hop in ssh.jump or ())):
        if user and ":" in user:
            raise ConfigError(
                f"user '{user.partition(':')[0]}:...': no password stands in a profile; it is asked for on a terminal,"
                " or comes from a keyring or the variable BIOM3D_SSH_PASSWORD"
            )
    plan_route(ssh)


def _refuse_port_in_host(host: str) -> None:
    name, colon, port = host.rpartition(":")
    if host.startswith("[") or (colon and port.isdigit() and ":" not in name):
        plain = name.strip("[]") if port.isdigit() else host.strip("[]")
        number = port if port.isdigit() and not host.endswith("]") else "PORT"
        raise ConfigError(f"host '{host}' is more than a name or an address; give: --host {plain} --port {number}")


def _check_words(settings: Settings) -> None:
    for name, known in (("runtime", KINDS), ("keep", KEEPS)):
        value = getattr(settings, name)
        if value is not None and value not in known:
            raise ConfigError(f"{name} is '{value}'; wanted {', '.join(known[:-1])} or {known[-1]}")
    if settings.venv and settings.runtime != VENV:
        raise ConfigError("venv names an environment, which is used with runtime: venv only; set that, or leave it out")
    if settings.engine_socket and settings.runtime == VENV:
        raise ConfigError("engine-socket means nothing with runtime: venv, which needs no container engine")


def _check_numbers(settings: Settings) -> None:
    if settings.port is not None and not 0 < settings.port < 65536:
        raise ConfigError(f"port is {settings.port}; wanted 1 to 65535")
    if settings.parallel is not None and not 0 < settings.parallel <= 8:
        raise ConfigError(f"parallel is {settings.parallel}; wanted 1 to 8")
    if settings.bandwidth_mb_s is not None and not settings.bandwidth_mb_s > 0:
        raise ConfigError(f"bandwidth-mb-s is {settings.bandwidth_mb_s:g}; wanted more than 0, or leave it out")


def _refuse_for_local(settings: Settings) -> None:
    useless = ("port", "user", "key_file", "jump", "config", "workdir", "parallel", "bandwidth_mb_s")
    given = [name for name in useless if getattr(settings, name) is not None]
    if given:
        raise ConfigError(f"{given[0].replace('_', '-')} means nothing on this machine (host: local); leave it out")


def _from_anywhere(settings: Settings) -> Settings:
    """Return the settings with paths that mean the same in every folder."""
    return dataclasses.replace(settings, key_file=_full(settings.key_file), config=_full(settings.config))


def _protected(settings: Settings) -> Settings:
    """Return the settings with paths of the host marked as such."""
    if settings.address == LOCAL:
        return settings
    return dataclasses.replace(
        settings,
        workdir=_mark(settings.workdir),
        venv=_mark(settings.venv),
        engine_socket=_mark(settings.engine_socket),
    )


def _mark(path: str | None) -> str | None:
    plain = path_there(path)
    return f"{THERE}{plain}" if plain and plain.startswith(("/", "~")) else plain


def path_there(path: str | None) -> str | None:
    """Return a path of the host without the mark."""
    return path.removeprefix(THERE) if path else None


def _refuse_expanded(settings: Settings, source: str = "") -> None:
    """Raise ConfigError for a path of the host in which Snakemake would replace something by what it is here."""
    for name in ON_HOST if settings.address != LOCAL else ():
        value = getattr(settings, name) or ""
        key = f"{source}{name.replace('_', '-')}"
        if "$" in value:
            raise ConfigError(f"{key} '{value}': variables are those of this computer, not of the host; write it out")
        if source and value.startswith("~"):
            raise ConfigError(
                f"{key} '{value}': '~' is your home folder on this computer; for the host's write '{THERE}{value}'"
            )


def _full(path: str | None) -> str | None:
    return str(Path(path).expanduser().absolute()) if path else None


def render_profile(name: str, settings: Settings) -> str:
    """Return the text of a profile: every key with its reason, those that are not set as comments."""
    lines = [
        f"# Jobs on {settings.address}; from any folder: snakemake --profile {name}",
        f"# Made by 'biom3d remote add {name}'. Change it as you like; 'biom3d remote doctor {name}' checks it.",
        "# No password stands here: it is asked for, or comes from an agent, a keyring or BIOM3D_SSH_PASSWORD.",
        "",
    ]
    lines += [f"{key}: {scalar(value)}  # {reason}" for key, (value, reason) in COMMON.items()]
    lines.append("")
    for field, (example, reason) in OWN.items():
        value, key = getattr(settings, field), PREFIX + field.replace("_", "-")
        is_set = value is not None and value is not False
        lines.append(f"{key}: {scalar(value)}  # {reason}" if is_set else f"# {key}: {scalar(example)}  # {reason}")
    return "\n".join(lines) + "\n"


def scalar(value: Any) -> str:
    """Return a value as YAML, quoted where it would be read as something else."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if PLAIN.fullmatch(value) and yaml.safe_load(value) == value else json.dumps(value, ensure_ascii=False)


def read_profile(name: str) -> Settings:
    """Return the settings of the profile that `snakemake --profile NAME` would take: a path, or the user's own.

    Raises:
        ConfigError: there is none, it is for another executor, or a key is wrong.
    """
    path = find_profile(name)
    content = read_yaml(path)
    if content.get("executor") == OLD_EXECUTOR:
        raise ConfigError(
            f"'{path}' was made by an older version: the executor '{OLD_EXECUTOR}' is called '{EXECUTOR}' now; renew it"
            f" with: biom3d remote renew {name}"
        )
    if content.get("executor") != EXECUTOR:
        raise ConfigError(
            f"'{path}' is a profile for executor '{content.get('executor', 'local')}', not for ours, '{EXECUTOR}'"
        )
    hints = typing.get_type_hints(Settings)
    values = {}
    for key, value in content.items():
        if key.startswith(PREFIX):
            field = key.removeprefix(PREFIX).replace("-", "_")
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            # `gpus: 0` is a number to YAML, and to Snakemake the word that is wanted.
            values[field] = str(value) if is_number and hints.get(field) == str | None else value
    settings = from_mapping(Settings, values, str(path))
    _refuse_expanded(settings, f"'{path}': {PREFIX}")
    return dataclasses.replace(
        settings,
        workdir=path_there(settings.workdir),
        venv=path_there(settings.venv),
        engine_socket=path_there(settings.engine_socket),
    )


def renew_profile(name: str) -> Path:
    """Give executor and keys of a profile of an older version their names of today; return its path.

    Everything else in the file stays as it is.
    """
    path = find_profile(name)
    if read_yaml(path).get("executor") != OLD_EXECUTOR:
        raise ConfigError(f"'{path}' needs no renewal: its executor is not '{OLD_EXECUTOR}'")
    text = path.read_text(encoding="utf-8")
    for old, new in (
        (rf"(executor:\s*){OLD_EXECUTOR}\b", rf"\g<1>{EXECUTOR}"),
        (r"(# )?ssh-host:", r"\g<1>host-address:"),
        (r"(# )?ssh-(?=[a-z-]+:)", rf"\g<1>{PREFIX}"),
    ):
        text = re.sub(rf"^{old}", new, text, flags=re.MULTILINE)
    write_text(path, text)
    return path


def find_profile(name: str) -> Path:
    """Return the file of a profile."""
    for folder in (Path(name), profiles_folder() / name):
        for path in (folder, folder / FILE, folder / "config.yaml"):
            if path.is_file():
                return path
    known = ", ".join(known for known, _, _ in list_profiles()) or "none yet"
    raise ConfigError(
        f"no profile '{name}' in '{profiles_folder()}' (there: {known}); make it: biom3d remote add {name}"
    )


def list_profiles() -> Iterator[tuple[str, Settings, Path]]:
    """Yield name, settings and file of the user's profiles that use our executor; others are passed over."""
    for folder in sorted(profiles_folder().glob("*/")):
        try:
            yield folder.name, read_profile(str(folder)), find_profile(str(folder))
        except ConfigError:
            continue


def ssh_settings(settings: Settings) -> SSHSettings:
    """Return what the profile says of a host reached by SSH; what it leaves open comes from ~/.ssh/config."""
    given = {name: getattr(settings, name) for name in ("port", "user", "workdir", "parallel", "bandwidth_mb_s")}
    return SSHSettings(
        host=settings.address,
        key_file=Path(settings.key_file).expanduser() if settings.key_file else None,
        jump=parse_jump(settings.jump) if settings.jump else None,
        engine_socket=path_there(settings.engine_socket),
        check_store=bool(settings.check_store),
        config=Path(settings.config).expanduser() if settings.config else None,
        **{
            name: value
            for name, value in (given | {"workdir": path_there(settings.workdir)}).items()
            if value is not None
        },
    )


def open_host(settings: Settings, folder: Path) -> Host:
    """Return the host; on this machine it works for the workflow in `folder`. Nothing is connected yet.

    `settings` may be the executor plugin's own, which has the same fields; None there stands for the default.
    """
    if settings.address in (None, LOCAL):
        return _local_class(settings)(folder / LOCAL_FOLDER, settings.engine_socket)
    return ssh_class(settings)(ssh_settings(settings))


def ssh_class(settings: Settings) -> "type[SSHHost]":
    """Return the kind of host that is reached by SSH."""
    if settings.runtime == PODMAN:
        from biom3d.remote.podman import SSHPodman

        return SSHPodman
    from biom3d.remote.ssh import SSHHost

    return SSHHost


def _local_class(settings: Settings) -> type[LocalHost]:
    if settings.runtime == PODMAN:
        from biom3d.remote.podman import LocalPodman

        return LocalPodman
    return LocalHost


def open_runtime(settings: Settings, host: Host) -> Runtime:
    """Return what supervises jobs on the host; ConfigError for words that it does not know."""
    _check_words(settings)
    if settings.runtime != VENV:
        from biom3d.remote.containers import Containers

        return Containers(host)
    from biom3d.remote.venv import Venv

    is_here = settings.address in (None, LOCAL)
    return Venv(host, path_there(settings.venv) or (sys.prefix if is_here else None))


def keep_policy(settings: Settings) -> Keep:
    """Return which folders of jobs stay on the host."""
    return typing.cast(Keep, settings.keep or "failed")


def devices(settings: Settings) -> tuple[str, ...] | None:
    """Return the GPUs that jobs may use; None for all."""
    return tuple(part.strip() for part in settings.gpus.split(",")) if settings.gpus else None
