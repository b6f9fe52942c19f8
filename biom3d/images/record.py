"""Write into the lock what images on this machine turned out to be."""

from typing import TYPE_CHECKING

from biom3d.engine import find_image
from biom3d.events import Reporter
from biom3d.images.keys import dependencies_key, image_of, lock_hash
from biom3d.images.lock import Lock, Row, base_digest, base_id, read_lock, write_lock
from biom3d.images.plan import plan_build
from biom3d.images.table import Table
from biom3d.images.verify import check_image

if TYPE_CHECKING:
    import docker


def lock_images(client: "docker.DockerClient", table: Table, variants: list[str], report: Reporter) -> Lock:
    """Write the lock with the rows of `variants` as verified here; rows not built here stay while they are true."""
    old = read_lock(table.root)
    built = [name for name, row in table.images.items() if not row.reference]
    rows = {name: row for name, row in old.images.items() if name in built and is_true(table, name, row)}
    for name in variants:
        image = image_of(table, name)
        if find_image(client, image.reference) is None:
            kept = "its old row is still true and stays" if name in rows else "it gets no row"
            report.info(f"{name}: not on this machine; {kept}")
            continue
        rows[name] = _measure(client, table, name)
    bases = {base_id(table, table.images[name].base): row.base for name, row in rows.items()}
    lock = Lock(bases, rows)
    write_lock(table.root, lock)
    return lock


def is_true(table: Table, name: str, row: Row) -> bool:
    """Say whether a row was made from what the table, the template and the locks say now."""
    return row.digest == f"sha256:{dependencies_key(table, name, row.base)}"


def _measure(client: "docker.DockerClient", table: Table, name: str) -> Row:
    """Return the row of an image; sizes and layers are those without our own packages."""
    image, base = image_of(table, name), base_digest(table, table.images[name].base)
    facts = check_image(client, table, image)
    dependencies = find_image(client, plan_build(table, name, "").dependencies.tag)
    size = dependencies.attrs["Size"] if dependencies else facts.size
    return Row(
        digest=f"sha256:{dependencies_key(table, name, base)}",
        base=base,
        wheels=f"sha256:{lock_hash(table, name)}",
        torch=facts.torch,
        cuda=facts.cuda,
        python=facts.python,
        size_mb=round(size / 1e6),
        layers=facts.layers[:-1],
    )
