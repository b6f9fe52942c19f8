"""From the table to what is to be done: a plan as a value, which prints itself as the commands that do the same."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from biom3d.images.keys import Image, dependencies_key, image_of, lock_hash
from biom3d.images.lock import base_digest, base_id
from biom3d.images.table import Base, Table
from biom3d.images.wheels import CACHE, download_command

# Man pages, translations and most documentation: 50 MB that no step reads. Licences stay.
DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)


@dataclass(frozen=True)
class BasePlan:
    """How a base comes to be on this machine: by `command` and `docker import`, or (no command) by a pull.

    `command` lacks its output, which comes next, and then `mirror`, if the table names one.
    """

    reference: str
    command: tuple[str, ...] = ()
    mirror: tuple[str, ...] = ()
    epoch: int = 0

    def commands(self) -> list[str]:
        """Return the plan as commands for a shell."""
        if not self.command:
            return [f"docker pull {self.reference}"]
        make = f"SOURCE_DATE_EPOCH={self.epoch} {shlex.join([*self.command, 'base.tar', *self.mirror])}"
        return [make, f"docker import base.tar {self.reference}"]


@dataclass(frozen=True)
class Go:
    """One run of the builder: `target` of the template with `arguments`, whose image is first named `tag`."""

    target: str
    tag: str
    arguments: tuple[tuple[str, str], ...]

    def command(self, context: str) -> str:
        """Return the go as a command for a shell."""
        words = ["docker", "build", "--target", self.target, "--tag", self.tag]
        words += [word for name, value in self.arguments for word in ("--build-arg", f"{name}={value}")]
        return shlex.join([*words, context])


@dataclass(frozen=True)
class BuildPlan:
    """How the image of a row is made: base, wheels, dependencies, our packages; then it is asked, then named."""

    image: Image
    base: BasePlan
    download: tuple[str, ...]
    dependencies: Go
    final: Go

    def commands(self) -> list[str]:
        """Return the plan as commands for a shell, in their order."""
        return [
            *self.base.commands(),
            shlex.join(self.download),
            self.dependencies.command("CONTEXT_WITH_WHEELS"),
            self.final.command("CONTEXT_WITH_PACKAGES"),
            f"docker run --rm --network none --read-only {self.final.tag} python -c PROBE",
            f"docker tag {self.final.tag} {self.image.reference}",
            f"docker rmi {self.final.tag}",
        ]


def plan_base(table: Table, name: str) -> BasePlan:
    """Return how the base `name` comes to be."""
    base: Base = table.bases[name]
    if base.reference:
        return BasePlan(base.reference)
    assert base.mmdebstrap is not None, "the schema wants one of the two"
    bootstrap = base.mmdebstrap
    options = [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    options += [f"--customize-hook={hook}" for hook in bootstrap.hooks]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(bootstrap.packages)}", *options]
    mirror = (bootstrap.mirror,) if bootstrap.mirror else ()
    return BasePlan(f"{table.name}/base:{base_id(table, name)}", (*command, bootstrap.suite), mirror, table.epoch)


def plan_build(table: Table, variant: str, revision: str) -> BuildPlan:
    """Return how the image of a row is built; `revision` is the commit that its label names.

    Raises:
        ConfigError: the row is built by others, or something that `keys.lookup` needs is missing.
    """
    row = table.variant(variant)
    image = image_of(table, variant)
    digest = base_digest(table, row.base)
    base = plan_base(table, row.base)
    key = dependencies_key(table, variant, digest)
    dependencies = f"{table.name}/{variant}:dependencies-{key[:12]}"
    epoch = ("SOURCE_DATE_EPOCH", str(table.epoch))
    folder = f"{CACHE}/{variant}"
    labels = {
        "TITLE": f"{table.name} {variant}: {row.summary}",
        "SOURCE": table.source,
        "REVISION": revision,
        "VERSION": table.version_of(variant),
        "BASE_NAME": base.reference.split("@")[0],
        "BASE_DIGEST": digest,
        "KEY": image.digest,
        "WHEELS": lock_hash(table, variant),
        "TORCH": row.torch,
        "CUDA": row.cuda,
        "PYTHON": table.bases[row.base].python,
        "DRIVER": row.driver,
        "COMMAND": row.command,
    }
    return BuildPlan(
        image,
        base,
        tuple(download_command(table.lock_of(variant).relative_to(table.root), Path(folder), labels["PYTHON"])),
        Go("dependencies", dependencies, (("BASE", base.reference), epoch, ("BUILD", key[:12]))),
        Go("image", building_tag(image), (("DEPENDENCIES", dependencies), epoch, ("BUILD", key[:12]), *labels.items())),
    )


def building_tag(image: Image) -> str:
    """Return the name of an image that was not verified yet."""
    name, tag = image.reference.rsplit(":", 1)
    return f"{name}:unverified-{tag}"
