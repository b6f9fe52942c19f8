"""GPU leases: one `flock` per device on the host, held by the job's own supervisor, so it ends with the job.

The kernel keeps the lock: it is right between several users, several clients and after any of them was killed. We
only choose devices that look free; the job's `run.sh` takes the locks, and ends with DEVICE_TAKEN if it comes too late.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

from biom3d.errors import HostError
from biom3d.remote.host import Host
from biom3d.remote.template import made

# The same for all users of the host, so not below anybody's folder. Files there are read-only to others but lockable.
LEASES = PurePosixPath("/tmp/biom3d-gpus")  # noqa: S108 - nothing is ever read from them
_FIND_DEVICES = made(
    "find_devices",
    "command -v nvidia-smi >/dev/null || exit 0; nvidia-smi --query-gpu=index --format=csv,noheader",
)
# The folder is made by whoever comes first; the sticky bit keeps others from removing what they do not own.
_FIND_FREE = made(
    "find_free",
    """
[ -d "$1" ] || (umask 0 && mkdir -m 1777 -- "$1") 2>/dev/null
cd -- "$1" || exit
shift
for device; do
  [ -e "$device" ] || (umask 0333 && : >"$device") 2>/dev/null
  flock --nonblock "$device" true <"$device" && echo "$device"
done; true
""",
    "leases",
    "device*",
)
TEMPLATES = (_FIND_DEVICES, _FIND_FREE)


def find_devices(host: Host) -> tuple[str, ...]:
    """Return the numbers of the host's NVIDIA GPUs, as nvidia-smi counts them; none if it has no such command."""
    done = host.run(_FIND_DEVICES.line())
    if done.code:
        reason = (done.err or done.out).decode(errors="replace").strip()
        raise HostError(f"{host.name}: nvidia-smi failed ({reason}); is the driver loaded there?")
    return tuple(line.strip() for line in done.out.decode().splitlines() if line.strip())


def find_free(host: Host, devices: Sequence[str]) -> tuple[str, ...]:
    """Return those of `devices` that nobody has leased at this moment."""
    done = host.run(_FIND_FREE.line(LEASES, *devices))
    if done.code:
        raise HostError(
            f"{host.name}: cannot lease GPUs in {LEASES}: {done.err.decode(errors='replace').strip()};"
            " the host needs 'flock' (util-linux) and a folder there that all may use"
        )
    return tuple(done.out.decode().split())
