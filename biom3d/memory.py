"""How much memory this process may take: what the machine, the container and the shell allow."""

import math
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from biom3d.errors import ConfigError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
SHARE = 0.95  # of what is allowed; the rest is for what no estimate sees


@dataclass(frozen=True)
class Limit:
    """Bytes that this process may hold in memory, and who says so."""

    bytes: int
    who: str


def memory_limit(asked_gb: float | None, proc: Path = PROC, cgroups: Path = CGROUPS) -> Limit:
    """Return the tightest limit: what was asked for, the machine's free memory, the container's, `ulimit -v`."""
    if asked_gb is not None and not 0 < asked_gb < math.inf:
        raise ConfigError(f"--memory_limit {asked_gb:g}: wanted a number above 0, in GB")
    held = resident_bytes(proc)
    limits = [
        Limit(_machine_bytes(proc, held), "this machine has"),
        *(Limit(size, "the container allows") for size in _cgroup_bytes(proc, cgroups)),
        *(Limit(size, "ulimit -v allows") for size in _address_bytes(proc, held)),
    ]
    if asked_gb is not None:
        limits.insert(0, Limit(int(asked_gb * 1e9), "--memory_limit allows"))
    return min(limits, key=lambda limit: limit.bytes)


def resident_bytes(proc: Path = PROC) -> int:
    """Return the memory that this process holds now; where there is no /proc, the most that it ever held."""
    try:
        return _kilobytes(proc / "self" / "status", "VmRSS")
    except (OSError, KeyError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def in_gb(size: float) -> str:
    """Write bytes for people: `2.3 GB`."""
    return f"{size / 1e9:.1f} GB"


def _machine_bytes(proc: Path, held: int) -> int:
    """Return what is free and what is ours; all memory where the system does not say what is free."""
    try:
        return _kilobytes(proc / "meminfo", "MemAvailable") + held
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_bytes(proc: Path, cgroups: Path) -> list[int]:
    """Return the limits of this process's control groups, of version 1 and 2, and of those around them."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        # in a container the path may be that of the host, of which only the top is to be seen
        group = top / path.lstrip("/")
        found += [top / name, *(folder / name for folder in (group, *group.parents) if folder.is_relative_to(top))]
    return [size for file in dict.fromkeys(found) if (size := _number_in(file)) is not None]


def _number_in(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max": no limit


def _address_bytes(proc: Path, held: int) -> list[int]:
    """Return what `ulimit -v` leaves to be held, beside what is only reserved; nothing where it is unlimited."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    try:
        return [max(0, limit - (_kilobytes(proc / "self" / "status", "VmSize") - held))]
    except (OSError, KeyError):
        return [limit]


def _kilobytes(file: Path, key: str) -> int:
    """Return the bytes of a line `key: N kB`."""
    rows = (line.split(":", 1) for line in file.read_text(encoding="utf-8").splitlines() if ":" in line)
    return int(dict(rows)[key].split()[0]) * 1024
