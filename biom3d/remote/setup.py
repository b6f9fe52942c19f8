"""Sets a server up from afar: what `biom3d server init` does there, over the connection of a profile."""

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from biom3d.errors import ConfigError, HostError
from biom3d.remote.host import Finished, Host
from biom3d.remote.profile import LOCAL, Settings, ssh_settings
from biom3d.remote.ssh_config import plan_route
from biom3d.server.card import Card
from biom3d.server.environment import Source
from biom3d.server.judge import Finding
from biom3d.server.setup import Wish, ask_well, set_up


def init(
    host: Host, settings: Settings, wish: Wish, say: Callable[[str], None], show: Callable[[Finding], None]
) -> Card:
    """Set up the server of a profile, and return its card as this computer reaches it.

    Raises:
        ConfigError: the profile is for this machine.
        HostError: the server lacks something, or a command failed there.
    """
    if settings.address == LOCAL:
        raise ConfigError("this profile is for this machine; run here: biom3d server init DIR")
    station = plan_route(ssh_settings(settings))[-1]

    def ask(line: str, stdin: bytes) -> Finished:
        return host.run(line, stdin=stdin)

    wish = replace(
        wish,
        address=wish.address or station.host,
        port=wish.port or station.port,
        jump=wish.jump or settings.jump or "",
    )
    if wish.has_environment and wish.source.path:
        wish = replace(wish, source=_send(ask, wish.workdir, wish.source, say))
    return set_up(ask, wish, say, show)


def _send(
    ask: Callable[[str, bytes], Finished], workdir: PurePosixPath, source: Source, say: Callable[[str], None]
) -> Source:
    """Bring the package's wheel there; what it needs comes from the server's own pip."""
    if source.is_folder_of_wheels:
        raise ConfigError(
            "--from a folder of wheels works on the server itself; from afar give one wheel or a checkout"
        )
    with tempfile.TemporaryDirectory() as scratch:
        wheel = Path(source.path)
        if wheel.is_dir():
            say(f"building a wheel of '{wheel}'")
            wheel = build_wheel(wheel, Path(scratch))
        folder = f"{shlex.quote(str(workdir))}/.biom3d/setup"
        path = f"{folder}/{shlex.quote(wheel.name)}"
        enter = f"umask 077; cd && mkdir -p -- {folder}"
        ask_well(lambda line, _: ask(line, wheel.read_bytes()), f"{enter} && cat > {path}.new && mv {path}.new {path}")
        where = ask(f"{enter} && cd -- {folder} && pwd -P", b"")
        if where.code:
            raise HostError(f"cannot enter '{folder}' there: {where.err.decode(errors='replace')[:200]}")
        return Source(f"{where.out.decode().strip()}/{wheel.name}", source.digest)


def build_wheel(checkout: Path, folder: Path) -> Path:
    """Build the wheel of a checkout into `folder`, without a network; return its path."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--wheel-dir", str(folder), str(checkout)], capture_output=True, text=True)
    wheels = sorted(folder.glob("biom3d_workflow-*.whl"))
    if done.returncode or not wheels:
        raise ConfigError(f"no wheel can be made of '{checkout}': {' '.join(done.stderr.split())[-400:]}")
    return wheels[0]
