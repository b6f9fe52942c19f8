"""What we change in Snakemake: this Snakemake is as the changes expect it, and another one is told by name."""

import subprocess
import sys

from tests.workflow.conftest import ROOT

LIBRARY = ROOT / "workflow/lib"


def surprises(before: str = "") -> list[str]:
    """Ask in a process of its own, in which nothing is changed yet."""
    code = f"import sys; sys.path.insert(0, {str(LIBRARY)!r})\n{before}\n"
    code += "from biom3d_workflow.snakemake_patches import find_surprises; print(*find_surprises(), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


def test_this_snakemake_is_as_our_changes_expect_it():
    assert surprises() == [], "see workflow/lib/biom3d_workflow/snakemake_patches.py"


def test_another_one_is_told_by_what_it_changed():
    other = "import snakemake.api, snakemake.jobs, snakemake.workflow as w; del snakemake.jobs.Job.conda_env_spec\n"
    other += "w.Workflow.rerun_triggers = None"
    told = surprises(other)
    assert [line.partition(" has changed what we count on: ")[2] for line in told] == [
        "rerun_by_identity: Workflow.rerun_triggers is a property",
        "ask_for_no_conda: Job.conda_env_spec",
    ]
