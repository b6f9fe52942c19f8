"""A profile from a server's card; its host key is taken over only if the server shows the very key of the card."""

import dataclasses
from contextlib import closing

from biom3d.errors import HostError
from biom3d.remote import link
from biom3d.remote.auth import Wallet, find_person
from biom3d.remote.hostkeys import Person, check_key, fingerprint
from biom3d.remote.keygen import key_path
from biom3d.remote.profile import Settings, ssh_settings
from biom3d.remote.ssh_config import SSHSettings, Station, plan_route
from biom3d.remote.ssh_errors import explain
from biom3d.server.card import Card


def settings_of(card: Card, name: str, given: Settings) -> Settings:
    """Return the settings of profile `name`: those of the card, and before them what was `given` beside it."""
    key = key_path(name)
    has_engine = bool(card.engine)
    of_card = Settings(
        address=card.address,
        port=card.port,
        user=card.user,
        jump=card.jump or None,
        workdir=card.workdir,
        key_file=str(key) if key.is_file() else None,  # as `remote keygen NAME` made it
        engine_socket=card.engine_socket or None,
        runtime=card.engine if has_engine else "venv",
        venv=None if has_engine else card.environment or None,
    )
    plain = Settings()
    changes = {
        field.name: getattr(given, field.name)
        for field in dataclasses.fields(Settings)
        if getattr(given, field.name) != getattr(plain, field.name)
    }
    if changes.get("runtime") == "venv" and "venv" not in changes:
        changes |= {"venv": card.environment or None, "engine_socket": None}
    return dataclasses.replace(of_card, **changes)


def trust(card: Card, settings: Settings, person: Person | None = None) -> str:
    """Ask the server for its host key and note it in known_hosts if it is the card's; return its fingerprint.

    Raises:
        HostError: the server shows another key, or known_hosts knows another one; nothing is noted then.
    """
    ssh = ssh_settings(settings)
    route = plan_route(ssh)
    kind, key = ask_key(route, ssh, person or find_person())
    if f"{kind} {fingerprint(key)}" not in card.host_keys:
        wanted = " or ".join(card.fingerprints)
        raise HostError(
            f"{route[-1].name}: the server at {route[-1].host}:{route[-1].port} shows the host key {fingerprint(key)},"
            f" and the card says {wanted}. Either the card is old, or somebody stands between you and the server."
            " Nothing was written; ask the administrator, on another way, which key is right"
        )
    check_key(route[-1], kind, key, _Agreed())
    return fingerprint(key)


class _Agreed:
    """Says yes to a key that was compared with the card."""

    def confirm(self, question: str) -> bool:
        return True

    def secret(self, question: str) -> str:
        return ""


def ask_key(route: tuple[Station, ...], settings: SSHSettings, person: Person | None) -> tuple[str, bytes]:
    """Return kind and bytes of the host key that the last station shows; nobody logs in there, on the way as usual."""
    import paramiko

    last, before = route[-1], None
    try:
        if len(route) > 1:
            before = link.connect(route[:-1], Wallet(route, person), person, settings)
        sock = link._through(before.transport, last, settings) if before else link._dial(last, settings)
        with closing(link._start(sock, last, settings)) as transport:
            key = transport.get_remote_server_key()
            return key.get_name(), key.asbytes()
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise explain(last, error) from error
    finally:
        if before:
            before.close()
