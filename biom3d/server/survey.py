"""Looks at a server as its administrator sees it: one script of POSIX sh, asked here or from afar."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol

from biom3d.errors import DataError, HostError
from biom3d.server.keys import parse_public_key

NEEDED = ("tar", "gzip", "find", "xargs", "awk", "flock")  # as the client's first look wants them
DRIVERS = (("cuda", 580), ("cuda-legacy", 525))  # build of torch -> oldest NVIDIA driver; as in containers/images.yaml
GPU_FIELDS = "index,name,memory.total,driver_version"
DOCKER_FORM = "{{.ServerVersion}}|{{.SecurityOptions}}|{{range $name, $_ := .Runtimes}}{{$name}} {{end}}"
PODMAN_FORM = "{{.Version.Version}}|{{.Host.Security.Rootless}}|{{.Host.RemoteSocket.Path}}"
SERVER_FILE, GATE_FILE = ".biom3d-server.json", ".biom3d-gate.json"  # in the account's home folder
PYTHONS = ((3, 11), (3, 13))  # for which every package has a wheel


class Answer(Protocol):
    """A command that has ended."""

    @property
    def code(self) -> int:
        """Its exit code."""
        ...

    @property
    def out(self) -> bytes:
        """What it printed."""
        ...

    @property
    def err(self) -> bytes:
        """What it complained about."""
        ...


Ask = Callable[[str, bytes], Answer]  # runs a line of POSIX shell, with this on its standard input


@dataclass(frozen=True)
class Facts:
    """What a server says of itself."""

    user: str
    workdir: str
    hostname: str
    port: int
    host_keys: tuple[str, ...]  # KIND SHA256:...
    is_sshd_answering: bool
    free_bytes: int
    tools: tuple[str, ...]
    pythons: tuple[tuple[str, tuple[int, int]], ...]  # path, version; the newest that fits first
    gpus: tuple[str, ...] = ()  # number: name, memory
    driver: str = ""
    engine: str = ""
    engine_version: str = ""
    is_rootless: bool = False
    engine_socket: str = ""
    engine_error: str = ""
    can_give_gpus: bool = False
    images: tuple[str, ...] = ()
    image_ids: tuple[str, ...] = ()
    environment: str = ""  # made by us and finished, or the one of the server image

    @property
    def torch_build(self) -> str:
        """Which build of torch suits the GPUs: cpu, cuda or cuda-legacy."""
        major = self.driver.partition(".")[0]
        fitting = [build for build, least in DRIVERS if major.isdigit() and int(major) >= least]
        return fitting[0] if self.gpus and fitting else "cpu"


def survey_script(workdir: PurePosixPath, port: int | None) -> str:
    """Return the script; it makes `data` and `logs` below `workdir`, and prints lines of a word and a value."""
    pythons = " ".join(f"python3.{minor}" for minor in range(PYTHONS[1][1], PYTHONS[0][1] - 1, -1))
    folder = shlex.quote(str(workdir))
    return f"""
LC_ALL=C PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin; export LC_ALL PATH; umask 022
say() {{ printf '%s\\t%s\\n' "$1" "$2"; }}
each() {{ while IFS= read -r line; do say "$1" "$line"; done; }}
quick() {{ if command -v timeout >/dev/null 2>&1; then timeout 10 "$@"; else "$@"; fi; }}
home=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6); home=${{home:-$HOME}}
cd -- "$home" && mkdir -p -- {folder} && cd -- {folder} && mkdir -p data logs || exit 1
say mark biom3d-server
say workdir "$(pwd -P)"; say user "$(id -un)"
say hostname "$(hostname -f 2>/dev/null || hostname 2>/dev/null || uname -n)"
[ -e env/.biom3d-env ] && say environment "$(pwd -P)/env"
[ -e "$home/{SERVER_FILE}" ] && say noted "$(tr -d '\n' <"$home/{SERVER_FILE}")"
say free "$(stat -f -c '%a %S' .)"
for tool in {" ".join(NEEDED)} openssl sha256sum zstd; do command -v $tool >/dev/null 2>&1 && say tool $tool; done
for python in {pythons} python3; do
  quick $python -c 'import ensurepip, sys, venv; print(sys.executable, *sys.version_info[:2])' 2>/dev/null | each python
done
port={port or ""}
[ "$port" ] || port=${{SSH_CONNECTION##* }}
[ "$port" ] || port=$(sshd -T 2>/dev/null | awk '$1 == "port" {{ print $2; exit }}')
[ "$port" ] || port=$(cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf 2>/dev/null |
  awk 'tolower($1) == "port" {{ print $2; exit }}')
say port "${{port:=22}}"
address=$(printf %s "$SSH_CONNECTION" | awk '{{ print $3 }}')
quick ssh-keyscan -T 5 -p "$port" "${{address:-127.0.0.1}}" 2>/dev/null | sed 's/^[^ ]* //' | each shown
cat /etc/ssh/ssh_host_*_key.pub 2>/dev/null | each file
if command -v nvidia-smi >/dev/null 2>&1; then
  quick nvidia-smi --query-gpu={GPU_FIELDS} --format=csv,noheader,nounits 2>/dev/null | each gpu
fi
engine=$(command -v docker || command -v podman)
if [ "$engine" ]; then
  say engine "${{engine##*/}}"
  case $engine in
  *docker) form='{DOCKER_FORM}' ;;
  *) form='{PODMAN_FORM}' ;;
  esac
  if told=$(quick "$engine" info --format "$form" 2>&1); then
    say info "$told"
    quick "$engine" images --no-trunc --format '{{{{.ID}}}} {{{{.Repository}}}}:{{{{.Tag}}}}' 2>/dev/null | each image
    [ "${{engine##*/}}" = podman ] ||
      say socket "${{DOCKER_HOST:-$(docker context inspect --format '{{{{.Endpoints.docker.Host}}}}' 2>/dev/null)}}"
  else
    say refused "$(printf %s "$told" | tr '\\n' ' ' | cut -c 1-300)"
  fi
fi
{{ [ -e /etc/cdi ] || [ -e /var/run/cdi ]; }} && ls /etc/cdi /var/run/cdi 2>/dev/null | grep -qi nvidia && say cdi yes
say end end
"""


def ask_facts(ask: Ask, workdir: PurePosixPath, port: int | None = None) -> Facts:
    """Look at the server; HostError says why that cannot be done."""
    done = ask(survey_script(workdir, port), b"")
    text = done.out.decode(errors="replace")
    if "mark\tbiom3d-server\n" not in text or "end\tend" not in text:
        reason = " ".join((done.err or done.out).decode(errors="replace").split())[:300]
        raise HostError(
            f"cannot set up '{workdir}': {reason or 'no answer'}; choose a folder that the account may write to"
        )
    return read_facts(text)


def read_facts(text: str) -> Facts:
    """Return what the script's lines say."""
    found: dict[str, list[str]] = {}
    for line in text.partition("mark\tbiom3d-server\n")[2].splitlines():
        word, _, value = line.partition("\t")
        found.setdefault(word, []).append(value.strip())
    blocks, size = found["free"][0].split()
    gpus = [
        row for row in ([part.strip() for part in line.split(",")] for line in found.get("gpu", [])) if len(row) == 4
    ]
    shown = _host_keys(found.get("shown", []))
    images = _images(found.get("image", []))
    return Facts(
        user=found["user"][0],
        workdir=found["workdir"][0],
        hostname=found["hostname"][0],
        port=int(found["port"][0]),
        host_keys=shown or _host_keys(found.get("file", [])),
        is_sshd_answering=bool(shown),
        free_bytes=int(blocks) * int(size),
        tools=tuple(found.get("tool", [])),
        pythons=_pythons(found.get("python", [])),
        gpus=tuple(f"{number}: {name}, {memory} MB" for number, name, memory, _ in gpus),
        driver=gpus[0][3] if gpus else "",
        images=tuple(images),
        image_ids=tuple(images.values()),
        environment=_environment(found),
        **_engine(found),
    )


def _host_keys(lines: Sequence[str]) -> tuple[str, ...]:
    """Return kind and fingerprint of each key, the kind that clients prefer first; weak ones are passed over."""
    keys = set()
    for line in lines:
        with suppress(DataError):
            keys.add(parse_public_key(line.encode(), "host key"))
    order = ("ssh-ed25519", "ecdsa", "ssh-rsa")
    place = {key: next((at for at, kind in enumerate(order) if key.kind.startswith(kind)), 9) for key in keys}
    return tuple(f"{key.kind} {key.fingerprint}" for key in sorted(keys, key=lambda key: (place[key], key.kind)))


def _pythons(lines: Sequence[str]) -> tuple[tuple[str, tuple[int, int]], ...]:
    found = {}
    for line in lines:
        path, major, minor = line.rsplit(" ", 2)
        version = (int(major), int(minor))
        if PYTHONS[0] <= version <= PYTHONS[1]:
            found[path] = version
    return tuple(found.items())


def _images(lines: Sequence[str]) -> dict[str, str]:
    """Return name -> id of the images of ours that jobs may run in; intermediate ones are passed over."""
    ours = {}
    for line in lines:
        key, _, name = line.partition(" ")
        name = name.removeprefix("localhost/")
        if name.startswith("biom3d-workflow/") and not re.search(r"/base:|:(dependencies|unverified)-|<none>", name):
            ours[name] = key if key.startswith("sha256:") else f"sha256:{key}"
    return dict(sorted(ours.items()))


def _environment(found: Mapping[str, Sequence[str]]) -> str:
    with suppress(ValueError, AttributeError):
        noted = json.loads(found.get("noted", ["{}"])[0]).get("environment")
        if isinstance(noted, str) and noted:
            return noted
    return found.get("environment", [""])[0]


def _engine(found: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    if "engine" not in found:
        return {}
    name = found["engine"][0]
    if "info" not in found:
        return {"engine": name, "engine_error": found.get("refused", [""])[0] or "it does not answer"}
    version, security, more = (*found["info"][0].split("|"), "", "")[:3]
    is_docker = name == "docker"
    return {
        "engine": name,
        "engine_version": version,
        "is_rootless": "rootless" in security if is_docker else security == "true",
        "engine_socket": (found.get("socket", [""])[0] if is_docker else more).removeprefix("unix://"),
        "can_give_gpus": "cdi" in found or (is_docker and "nvidia" in more.split()),
    }
