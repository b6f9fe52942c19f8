"""Ask an image what it is, and compare with what its labels and the table say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from biom3d.engine import HERE, translated
from biom3d.errors import ContainerError
from biom3d.images.keys import Image
from biom3d.images.table import Table

if TYPE_CHECKING:
    import docker

# Runs inside: no network, nothing writable, the image's own user.
PROBE = """
import importlib.metadata, json, os, platform, shutil, sys, torch
tools = [name for name in ("bash", "flock", "tee", "sha256sum") if not shutil.which(name)]
print(json.dumps({
    "torch": torch.__version__, "cuda": torch.version.cuda or "", "python": platform.python_version(),
    "version": importlib.metadata.version(sys.argv[1]), "uid": os.getuid(), "missing_tools": tools,
}))
"""
LABELS = {  # label -> what the table says
    "biom3d.torch": "torch",
    "biom3d.cuda": "cuda",
    "biom3d.python": "python",
    "biom3d.driver": "driver",
    "biom3d.key": "key",
    "org.opencontainers.image.version": "version",
}


@dataclass(frozen=True)
class Facts:
    """What a started image says of itself, and what the engine says of it."""

    torch: str
    cuda: str
    python: str
    version: str
    uid: int
    missing_tools: tuple[str, ...]
    size: int
    labels: Mapping[str, str]
    layers: tuple[str, ...]


def ask_image(client: "docker.DockerClient", reference: str, distribution: str) -> Facts:
    """Start the image and return what it answers."""
    with translated(HERE, f"starting image '{reference}'"):
        image = client.images.get(reference)
        output = client.containers.run(
            reference,
            ["python", "-c", PROBE, distribution],
            network_mode="none",
            read_only=True,
            remove=True,
        )
    try:
        answer: dict[str, Any] = json.loads(output.decode().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise ContainerError(f"image '{reference}' did not answer what it holds: {output[-200:]!r}") from error
    tools = tuple(answer.pop("missing_tools"))
    attributes = image.attrs
    labels = attributes["Config"]["Labels"] or {}
    layers = tuple(attributes["RootFS"]["Layers"])
    return Facts(**answer, missing_tools=tools, size=attributes["Size"], labels=labels, layers=layers)


def find_lies(table: Table, image: Image, facts: Facts) -> list[str]:
    """Return where labels, table and the image's own answers disagree; one sentence each."""
    row = table.variant(image.variant)
    wanted = {
        "torch": row.torch,
        "cuda": row.cuda,
        "python": table.base_of(image.variant).python,
        "driver": row.driver,
        "key": image.digest,
        "version": table.version_of(image.variant),
    }
    found = {"torch": facts.torch, "cuda": facts.cuda, "python": facts.python, "version": facts.version}
    # PyPI's CUDA builds call themselves 2.13.0+cu130
    found["torch"] = facts.torch if "+" in row.torch else facts.torch.split("+")[0]
    found["python"] = ".".join(facts.python.split(".")[:2])
    lies = [f"{key} is '{found[key]}', the table says '{wanted[key]}'" for key in found if found[key] != wanted[key]]
    for label, key in LABELS.items():
        if facts.labels.get(label) != wanted[key]:
            lies.append(f"label {label} is '{facts.labels.get(label)}', wanted '{wanted[key]}'")
    if facts.uid == 0:
        lies.append("it runs as root (uid 0)")
    if facts.missing_tools:
        lies.append(f"it lacks {', '.join(facts.missing_tools)}")
    return lies


def check_image(client: "docker.DockerClient", table: Table, image: Image, reference: str | None = None) -> Facts:
    """Return the facts of a true image (under another name: `reference`); ContainerError lists every lie."""
    name = reference or image.reference
    facts = ask_image(client, name, table.variant(image.variant).distribution)
    lies = find_lies(table, image, facts)
    if lies:
        raise ContainerError(f"image '{image.variant}' is not what it says: {'; '.join(lies)}")
    return facts
