"""Build images: base, wheels, two goes of the builder, then the image is asked; only a true one gets its name."""

import fcntl
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from biom3d.engine import HERE, explain, find_image, remove_image, translated
from biom3d.errors import ConfigError, ContainerError
from biom3d.events import Reporter
from biom3d.files import output_error, scratch_folder
from biom3d.images import wheels
from biom3d.images.base import ensure_base
from biom3d.images.keys import Image, image_of, template_parts
from biom3d.images.plan import Go, plan_build
from biom3d.images.table import FOLDER, Table
from biom3d.images.verify import check_image

if TYPE_CHECKING:
    import docker

CACHE = ".cache/images"
CHUNK = 2**20
BUILDER_LABEL = "biom3d.builder"  # on intermediate images, which are removed when their build is done
PRUNE_TRIES, PRUNE_PAUSE_S = 30, 1.0
CONFLICT = 409  # HTTP: somebody else is at it


def build_image(
    client: "docker.DockerClient", table: Table, variant: str, report: Reporter, again: bool = False
) -> Image:
    """Have the image of a row on the engine and return it; nothing is done where it is there already.

    `again` builds all of it anew, without the builder's cache.

    Raises:
        ConfigError: the row is built by others, a wheel is missing or has another hash than the lock.
        ContainerError: the builder failed, its disk is full, or the image is not what its labels say.
    """
    row = table.variant(variant)
    if row.reference:
        raise ConfigError(f"image '{variant}' is built by others; get it with: docker pull {row.reference}")
    with _only_builder(table.root):
        ensure_base(client, table, row.base, report)
        image = image_of(table, variant)
        if find_image(client, image.reference) and not again:
            report.info(f"{image.reference} is there, nothing to do")
            return image
        _build(client, table, image, report, again)
    report.info(f"{image.reference} built and verified")
    return image


def _build(client: "docker.DockerClient", table: Table, image: Image, report: Reporter, again: bool) -> None:
    """Build under another name, ask the image, then name it; what was under its name is untouched until then."""
    plan = plan_build(table, image.variant, revision(table.root))
    # Another checkout may build the same on this engine at this moment, and removes what it called unverified.
    final = replace(plan.final, tag=f"{plan.final.tag}-{os.getpid()}")
    try:
        if again or find_image(client, plan.dependencies.tag) is None:
            files = _dependency_files(table, image.variant, report)
            _run_go(client, table, plan.dependencies, files, report, again)
        with scratch_folder(table.root / CACHE) as scratch:
            files = _package_files(table, image.variant, scratch, report)
            if image_of(table, image.variant) != image:
                raise ConfigError(f"the sources of image '{image.variant}' changed while it was built; run it again")
            _run_go(client, table, final, files, report, again)
        report.info(f"asking the image what it holds: {image.variant}")
        check_image(client, table, image, final.tag)
        name, tag = image.reference.rsplit(":", 1)
        with translated(HERE, f"naming '{image.reference}'"):
            client.images.get(final.tag).tag(name, tag)
    finally:
        remove_image(client, final.tag)
        _remove_builders(client, dict(final.arguments)["BUILD"])


def revision(root: Path) -> str:
    """Return the commit of a checkout, with `-dirty` where files differ from it; empty outside git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match", ""],
        cwd=root,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@contextmanager
def _only_builder(root: Path) -> Iterator[None]:
    """Let one build at a time work in a checkout: they share wheels and the engine's cache."""
    path = root / CACHE / "build.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path, "w")  # noqa: SIM115 - closed below, and by the system where the process is killed
    except OSError as error:
        raise output_error(path, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _dependency_files(table: Table, variant: str, report: Reporter) -> dict[str, Path]:
    python = table.base_of(variant).python
    files = {f"dependencies/{path.name}": path for path in wheels.fetch_wheels(table, variant, report)}
    return {**files, "pip.whl": wheels.fetch_installer(table, python, report)}


def _package_files(table: Table, variant: str, scratch: Path, report: Reporter) -> dict[str, Path]:
    packages = wheels.build_packages(table, variant, scratch / "packages")
    pip = wheels.fetch_installer(table, table.base_of(variant).python, report)
    return {**{f"packages/{path.name}": path for path in packages}, "pip.whl": pip}


def _run_go(
    client: "docker.DockerClient", table: Table, go: Go, files: Mapping[str, Path], report: Reporter, again: bool
) -> None:
    """Send the context and build; ContainerError tells the last lines of a builder that failed."""
    folder = table.root / FOLDER
    scripts = {name: folder / name for name in ("install.sh", "entrypoint.sh")}
    dockerfile = template_parts(table.root)[0 if go.target == "dependencies" else 1]
    context = {**files, **scripts}
    total = sum(path.stat().st_size for path in context.values())
    chunks = tar_stream(dockerfile, context, table.epoch)
    sent = report.track(chunks, f"sending {total / 1e6:.0f} MB to the builder", total // CHUNK, "MB")
    with translated(HERE, f"building '{go.tag}'"):
        lines = client.api.build(
            fileobj=sent,
            custom_context=True,
            target=go.target,
            tag=go.tag,
            buildargs=dict(go.arguments),
            nocache=again,
            rm=True,
            forcerm=True,
            decode=True,
        )
        _follow(go.tag, lines, report)


def _follow(tag: str, lines: Iterator[Mapping[str, str]], report: Reporter) -> None:
    said: list[str] = []
    for line in report.track(lines, "building", unit="line"):
        said.extend(text for text in str(line.get("stream", "")).splitlines() if text.strip())
        if "error" in line:
            reason = f"{line['error']}; last lines: {' | '.join(said[-5:])}"
            raise ContainerError(explain(HERE, f"building '{tag}'", reason))


def _remove_builders(client: "docker.DockerClient", build: str) -> None:
    """Remove intermediate images; an engine removes for one client at a time, the others have to ask again."""
    import docker.errors

    with translated(HERE, "removing intermediate images"):
        for _ in range(PRUNE_TRIES):
            try:
                client.images.prune(filters={"dangling": True, "label": f"{BUILDER_LABEL}={build}"})
            except docker.errors.APIError as error:
                if error.status_code != CONFLICT:
                    raise
                time.sleep(PRUNE_PAUSE_S)
            else:
                return


def tar_stream(dockerfile: str, files: Mapping[str, Path], epoch: int) -> Iterator[bytes]:
    """Yield a build context as a tar archive in pieces of `CHUNK`: no copy on disk, no user, one age for all."""
    contents: dict[str, Path | bytes] = {"Dockerfile": dockerfile.encode(), **files}
    folders = sorted({"dependencies", "packages", *(str(Path(name).parent) for name in files)} - {"."})
    for name in folders:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, epoch
        yield info.tobuf(tarfile.PAX_FORMAT)
    for name in sorted(contents):
        source = contents[name]
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        info = tarfile.TarInfo(name)
        info.size, info.mtime = size, epoch
        info.mode = 0o755 if name.endswith(".sh") else 0o644
        yield info.tobuf(tarfile.PAX_FORMAT)
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
        yield b"\0" * (-size % tarfile.BLOCKSIZE)
    yield b"\0" * tarfile.RECORDSIZE
