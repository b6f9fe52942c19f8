"""What to do where `snakemake --profile NAME` names a profile that is not there yet.

Snakemake only says where it looked. No profile of that name is shipped: Snakemake would find it in the working folder
first and never see the user's own.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

OURS = ("local", "docker", "slurm")  # folders of profiles/


def find_missing(argv: Sequence[str], folders: Sequence[Path]) -> Optional[str]:
    """Return the profile that Snakemake's command line names and none of the folders has."""
    name = os.environ.get("SNAKEMAKE_PROFILE", "")
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == "--profile":
            name = following
        elif word.startswith("--profile="):
            name = word.partition("=")[2]
    if not name or os.sep in name or any((folder / name).exists() for folder in folders):
        return None
    return name


def lead_on() -> None:
    """Say how the profile that is missing comes to be; Snakemake's own error follows."""
    if "snakemake" not in Path(sys.argv[0]).parts[-2:]:  # .../bin/snakemake, or .../snakemake/__main__.py
        return
    from platformdirs import AppDirs  # comes with Snakemake

    places = AppDirs("snakemake", "snakemake")
    folders = [Path.cwd(), Path(places.user_config_dir), Path(places.site_config_dir)]
    name = find_missing(sys.argv[1:], folders)
    if name in OURS:
        print(f"biom3d: profile '{name}' is one of this workflow: snakemake --workflow-profile {name}", file=sys.stderr)
    elif name:
        how = f"`biom3d remote add {name} --host HOST` writes it, for a host over SSH (docs/remote.md)"
        print(
            f"biom3d: there is no profile '{name}' yet; {how}; then this command runs the jobs there", file=sys.stderr
        )
