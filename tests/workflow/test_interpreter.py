import os

from biom3d_workflow.interpreter import find_obstacle

from tests.workflow.conftest import make_project, run_snakemake


def install_theirs(folder):
    """What pip leaves of Biom3d 0.1.2, without its package."""
    (folder / "biom3d-0.1.2.dist-info").mkdir(parents=True)
    (folder / "biom3d-0.1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: biom3d\nVersion: 0.1.2\n")


def test_biom3d_of_pypi_in_the_same_python_is_refused_by_the_workflow(tmp_path, monkeypatch):
    assert find_obstacle() is None
    install_theirs(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, "models:\n  tiny:\n")
    done = run_snakemake("-n")
    assert done.returncode == 1
    assert "Biom3d 0.1.2 is installed in the Python of Snakemake" in done.stderr + done.stdout
