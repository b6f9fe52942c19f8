"""Bases on this machine: made by `mmdebstrap` and imported, or pulled by digest."""

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from biom3d.engine import HERE, find_image, translated
from biom3d.errors import ContainerError
from biom3d.events import Reporter
from biom3d.files import output_error, scratch_folder
from biom3d.images.lock import base_id, note_base, read_lock
from biom3d.images.plan import BasePlan, plan_base
from biom3d.images.table import Table

if TYPE_CHECKING:
    import docker


def ensure_base(client: "docker.DockerClient", table: Table, name: str, report: Reporter) -> str:
    """Have the base `name` on the engine, and return its digest: the SHA-256 of its one layer, or the pulled one."""
    plan = plan_base(table, name)
    image = find_image(client, plan.reference)
    if image is None:
        report.info(f"base '{name}' is not here yet; making it")
        _pull(client, plan) if not plan.command else _bootstrap(client, table, plan)
        image = find_image(client, plan.reference)
        assert image is not None, f"{plan.reference} was just made"
    if not plan.command:
        return plan.reference.split("@")[1]
    digest: str = image.attrs["RootFS"]["Layers"][0]
    note_base(table, name, digest)
    locked = read_lock(table.root).bases.get(base_id(table, name))
    if locked and locked != digest:
        report.info(
            f"note: Debian has moved on: base '{name}' is {digest[:19]} here, the lock was made with {locked[:19]}; "
            "so images get other names than with the lock's base"
        )
    return digest


def _pull(client: "docker.DockerClient", plan: BasePlan) -> None:
    with translated(HERE, f"pulling '{plan.reference}'"):
        client.images.pull(plan.reference)


def _bootstrap(client: "docker.DockerClient", table: Table, plan: BasePlan) -> None:
    if shutil.which(plan.command[0]) is None:
        raise ContainerError(
            f"making a base needs {plan.command[0]}; run: sudo apt-get install {plan.command[0]}; or let the table "
            "name a base by reference and digest"
        )
    cache = table.root / ".cache" / "images"
    try:
        with scratch_folder(cache) as scratch:
            archive = scratch / "base.tar"
            environment = {**os.environ, "SOURCE_DATE_EPOCH": str(plan.epoch)}
            command = [*plan.command, str(archive), *plan.mirror]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise ContainerError(f"{plan.command[0]} failed: {' '.join(done.stderr.split()[-60:])}")
            with translated(HERE, "importing the base"):
                repository, tag = plan.reference.rsplit(":", 1)
                client.api.import_image_from_file(str(archive), repository=repository, tag=tag)
    except OSError as error:
        raise output_error(cache, error) from error
