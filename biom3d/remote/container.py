"""A job as a container: how it is made, found again, and how it has ended.

The container is called `biom3d-<identity of the job>`, so there is one at most; labels say the rest. The engine
supervises it: container, exit code and log stay when the client goes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from biom3d.remote.ends import End
from biom3d.remote.engine import MB, Facts
from biom3d.remote.host import Mount
from biom3d.remote.job import FOLDER, Resources
from biom3d.remote.processes import mark
from biom3d.remote.runtime import Launch

# What the engine keeps of a job's log; the complete one is a file of the job's.
LOG_LIMIT = {"max-size": "64m", "max-file": "2"}
GONE = (404, 409)  # HTTP: an engine's answer about a container that was removed, or is being removed


def container_name(job_id: str) -> str:
    """Return the name of the job's container."""
    return f"biom3d-{job_id}"


def plan_container(launch: Launch, place: "Place") -> dict[str, Any]:
    """Return the arguments with which the SDK creates the container: all that the job may see, use and do.

    It sees its own folder and its inputs, has no network and no privilege, and runs as our account.
    """
    leases = [Mount(place.leases, PurePosixPath("/leases"))] if launch.devices else []
    own = Mount(launch.folder, PurePosixPath(FOLDER), read_only=False)
    resources = launch.spec.resources
    return {
        "image": launch.software.id,
        "name": container_name(launch.id),
        # In the list of the host's processes the labels are seen by those who may not ask the engine.
        "entrypoint": ["bash", f"{FOLDER}/run.sh", mark(launch.labels)],
        "labels": launch.labels,
        "mounts": [_bind(mount) for mount in (own, *launch.mounts, *leases)],
        "working_dir": FOLDER,
        "environment": {"BIOM3D_CONTAINER": "1", "BIOM3D_LEASES": " ".join(launch.devices)},
        "network_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": ""},  # noqa: S108 - the container's own
        "init": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": shared_memory_mb(resources) * MB,
        "log_config": {"Type": "json-file", "Config": LOG_LIMIT},
        "detach": True,
        **_account(place),
        **_limits(resources, place.facts),
        **_gpus(launch.devices),
    }


@dataclass(frozen=True)
class Place:
    """What a container's plan needs to know of the host: its engine, our account there.

    `leases` is the folder of the lock files, see gpus.py.
    """

    facts: Facts
    user: tuple[int, int]
    leases: PurePosixPath


def shared_memory_mb(resources: Resources) -> int:
    """Return the size of /dev/shm: a quarter of the memory, at least 64 MB (Docker's default), at most 8 GB."""
    return max(64, min(resources.mem_mb // 4, 8192))


def _bind(mount: Mount) -> Any:
    from docker.types import Mount as Bind

    # Not propagated and not as "source:target" text: names may have colons.
    return Bind(str(mount.target), str(mount.source), type="bind", read_only=mount.read_only)


def _account(place: Place) -> dict[str, str]:
    """Return as whom the container runs, so that its files are ours; a rootless engine's root is our account."""
    if not place.facts.is_rootless:
        return {"user": f"{place.user[0]}:{place.user[1]}"}
    if place.facts.is_podman:
        return {"user": f"{place.user[0]}:{place.user[1]}", "userns_mode": "keep-id"}
    return {"user": "0:0"}


def _limits(resources: Resources, facts: Facts) -> dict[str, int]:
    limits = {}
    if facts.can_limit_cores:
        limits["nano_cpus"] = min(resources.threads, facts.cores) * 10**9
    if facts.can_limit_memory and resources.mem_mb:
        # The same limit for memory and swap together: a job that swaps is slower than one that fails.
        limits["mem_limit"] = limits["memswap_limit"] = resources.mem_mb * MB
    return limits


def _gpus(devices: Sequence[str]) -> dict[str, Any]:
    from docker.types import DeviceRequest

    if not devices:
        return {}
    return {"device_requests": [DeviceRequest(device_ids=list(devices), capabilities=[["gpu"]])]}


def end_of(state: Mapping[str, Any]) -> End | None:
    """Return how a container ended, from what the engine says of its state; None while it runs or has not started."""
    if state["Status"] not in ("exited", "dead"):
        return None
    return End(int(state["ExitCode"]), bool(state.get("OOMKilled")))
