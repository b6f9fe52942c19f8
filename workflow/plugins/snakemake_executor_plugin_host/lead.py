"""What to do where `snakemake --profile NAME` names a profile that is not there yet, or is of an older version.

Snakemake only says where it looked. No profile of that name is shipped: Snakemake would find it in the working folder
first and never see the user's own.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

OURS = ("local", "docker", "slurm")  # folders of profiles/


def named_profile(argv: Sequence[str]) -> str:
    """Return the profile that Snakemake's command line names, nothing where it names none."""
    name = os.environ.get("SNAKEMAKE_PROFILE", "")
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == "--profile":
            name = following
        elif word.startswith("--profile="):
            name = word.partition("=")[2]
    return name


def is_missing(name: str, folders: Sequence[Path]) -> bool:
    """Say whether none of the folders has the profile; a path is looked for by Snakemake alone."""
    return bool(name) and os.sep not in name and not any((folder / name).exists() for folder in folders)


def is_old(name: str, folders: Sequence[Path]) -> bool:
    """Say whether the profile is of an older version, when our executor was called `ssh`."""
    for file in (folder / name / "profile.yaml" for folder in folders if name):
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            return any(re.match(r"executor:\s*ssh\b", line) for line in lines) and any(
                line.startswith("ssh-host:") for line in lines
            )
    return False


def lead_on() -> None:
    """Say how the profile that is missing comes to be; Snakemake's own error follows."""
    if "snakemake" not in Path(sys.argv[0]).parts[-2:]:  # .../bin/snakemake, or .../snakemake/__main__.py
        return
    from platformdirs import AppDirs  # comes with Snakemake

    places = AppDirs("snakemake", "snakemake")
    folders = [Path.cwd(), Path(places.user_config_dir), Path(places.site_config_dir)]
    name = named_profile(sys.argv[1:])
    if is_old(name, folders):
        print(
            f"biom3d: profile '{name}' was made by an older version: our executor 'ssh' is called 'host' now; renew it"
            f" with: biom3d remote renew {name}",
            file=sys.stderr,
        )
    elif not is_missing(name, folders):
        return
    elif name in OURS:
        print(f"biom3d: profile '{name}' is one of this workflow: snakemake --workflow-profile {name}", file=sys.stderr)
    else:
        how = f"`biom3d remote add {name} --host HOST` writes it, for a host over SSH (docs/remote.md)"
        print(
            f"biom3d: there is no profile '{name}' yet; {how}; then this command runs the jobs there", file=sys.stderr
        )
