"""Data sets and models that lie only on the server, as far as the workflow's own part goes; see tests/remote too."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from biom3d_workflow import server
from biom3d_workflow.invocation import LOOKS, UNKNOWN, VENV, find_server, has_containers, read_options
from biom3d_workflow.outcome import plan_rows, plan_steps
from biom3d_workflow.project import load_project, without_lost

from biom3d.remote import manifest, runtime
from tests.workflow.conftest import ROOT, run_snakemake, write_request

HEADER = "dataset\timages\tmasks\ttrain\tpredict\tlocation"
TABLE, CONFIG = "config/datasets.tsv", "config/config.yaml"
HERE = "A\tdata/a/images\tdata/a/masks\tm\t"
THERE = "X\tdata/x/images\tdata/x/masks\t\tm\tserver"
MODEL = "models: {m: {location: server, folds: 2}}"
LOCAL = ["--workflow-profile", str(ROOT / "profiles/local")]


@pytest.fixture
def project_of(request_of):
    return lambda config="models: {m: }", rows=(HERE, THERE): request_of(config, rows, HEADER)


@pytest.fixture
def problems(project_of):
    return lambda *args: [str(problem) for problem in project_of(*args).problems]


def test_nothing_of_it_needs_to_be_here(problems):
    assert problems() == []
    assert problems(MODEL, [THERE]) == []


def test_a_small_file_stands_for_each_path(project_of):
    project = project_of()
    assert project.inputs(project.datasets["X"]) == (["data/x/images.server.json"], ["data/x/masks.server.json"])
    assert project.inputs(project.datasets["A"])[0] == [f"data/a/images/{name}.tif" for name in "123"]
    assert sorted(project.on_server()) == ["data/x/images", "data/x/masks"]


def test_what_is_missing_there_fails_its_row_alone(project_of):
    project = without_lost(project_of(), {"data/x/images": "gpu1: there is no 'data/x/images'"})
    assert project.unreadable == {"X": "images: gpu1: there is no 'data/x/images'"}
    assert (project.pairs(), project.trainable()) == ([], ["m"])
    assert project.inputs(project.datasets["X"]) == ([], [])


def test_a_missing_model_or_nothing_left_refuses_the_run(project_of):
    with pytest.raises(ValueError, match="no model"):
        without_lost(project_of(MODEL, [THERE]), {"logs/m/fold_0": "no model"})
    with pytest.raises(ValueError, match="no images"):
        without_lost(project_of(MODEL, [THERE]), {"data/x/images": "no images"})


def test_a_data_set_may_have_no_masks(project_of):
    project = project_of(rows=[HERE, "X\tdata/x/images\t\t\tm\tserver"])
    assert project.inputs(project.datasets["X"])[1] == []
    assert project.evaluated_pairs() == []


def test_a_small_file_stands_for_each_fold_of_a_model(project_of):
    project = project_of(MODEL, [THERE])
    assert [project.watched_run(run) for run in project.models["m"].runs] == [
        "logs/m/fold_0.server.json",
        "logs/m/fold_1.server.json",
    ]


def test_the_small_files_have_the_name_that_the_executor_knows():
    assert server.SUFFIX == manifest.SUFFIX
    assert VENV == runtime.VENV


def test_a_model_on_the_server_is_not_trained(project_of):
    project = project_of(MODEL, [THERE])
    names = {step.name.split()[0] for step in plan_steps(project)}
    assert not names & {"preprocess", "train", "curves", "export_model"}
    assert [(row.dataset, row.model) for row in plan_rows(project)] == [("X", "m"), ("(summary)", "all")]


def test_a_model_may_start_from_one_on_the_server(project_of):
    config = "models: {m: {location: server, folds: 2}, n: {fine_tune: logs/m/fold_1}}"
    project = project_of(config, ["A\tdata/a/images\tdata/a/masks\tn\t"])
    assert list(project.on_server()) == ["logs/m/fold_1"]
    assert project.watched_run("logs/m/fold_1") == "logs/m/fold_1.server.json"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("X\t/data/x\t\t\tm\tserver", "images: '/data/x' is no folder below the working folder there; wanted such as"),
        ("X\t../x/y\t\t\tm\tserver", "images: '../x/y' is no folder below the working folder there; wanted such as"),
        ("X\tdata\t\t\tm\tserver", "images: 'data' is no folder below the working folder there; wanted such as"),
        ("X\t.biom3d/store\t\t\tm\tserver", "images: '.biom3d/store' is no folder below the working folder there; "),
        ("X\tdata/pred/m\t\t\tm\tserver", "images: 'data/pred/m': results are written to data/pred; give another"),
        ("X\tdata/a/images\t\t\tm\tserver", "images: 'data/a/images' is also a path of 'A' (line 2), which is here; "),
        (
            "X\tdata/x\t\t\tm\tcloud",
            'location: found "cloud" (text); wanted: local, server, or nothing, which is',
        ),
    ],
)
def test_a_mistake_in_the_table_is_told(problems, row, problem):
    found = f"{TABLE}:3: {problem}"
    assert [line[: len(found)] for line in problems("models: {m: }", [HERE, row])] == [found]


def test_a_model_on_the_server_cannot_be_trained(problems):
    expected = "train: 'm' lies on the server and only predicts; take it out of this column"
    assert f"{TABLE}:2: {expected}" in problems(MODEL)


def test_without_a_host_of_their_own_jobs_cannot_have_it(folder):
    write_request(MODEL, [THERE], HEADER)
    config = {"models": {"m": {"location": "server", "folds": 2}}}
    found = [str(problem) for problem in load_project(config, [CONFIG], {}, has_server=lambda: False).problems]
    assert found[0].startswith(f"{TABLE}:2: location: data set 'X' lies on the server; give a profile whose executor ")
    assert found[1].startswith(f"{CONFIG}:1: models.m.location: model 'm' lies on the server; give a profile whose ")


def find(words: str, **options):
    """Ask where jobs run; `words` are the command line, `options` what Snakemake's parser makes of them."""
    given = {"executor": "host", "report_after_run": False, "address": "gpu1"} | options
    options = read_options(words.split(), lambda words: SimpleNamespace(**given))
    return find_server(options, lambda options: options)


def test_an_executor_with_a_host_has_data_of_its_own():
    assert find("/bin/snakemake --profile gpu1").address == "gpu1"
    assert find("x/snakemake/__main__.py").address == "gpu1"
    assert find("snakemake -n", dryrun=True).address == "gpu1"


def test_the_executor_has_containers_unless_it_is_told_to_do_without():
    def inside(**options):
        return has_containers(SimpleNamespace(**options), lambda options: options)

    assert [inside(executor="host", runtime=runtime) for runtime in (None, "podman", VENV)] == [True, True, False]
    assert (inside(executor="local"), has_containers(None, None)) == (False, False)


@pytest.mark.parametrize(
    "options", [{"executor": "local"}, {"executor": None}, {"address": "local"}, {"address": None}]
)
def test_other_executors_have_none(options):
    assert find("snakemake", **options) is None


@pytest.mark.parametrize("option", LOOKS)
def test_where_nothing_runs_no_server_is_asked(option):
    assert find("snakemake", **{option: True}) == UNKNOWN


def test_a_report_after_a_run_is_a_run():
    assert find("snakemake", report="r.html", report_after_run=True).address == "gpu1"


def test_another_program_s_command_line_says_nothing():
    assert find("/usr/bin/pytest --profile gpu1") == UNKNOWN


def test_snakemake_knows_the_options_that_we_look_at():
    from snakemake.cli import get_argument_parser

    known = {action.dest for action in get_argument_parser()._actions}
    assert {*LOOKS, "executor", "report_after_run"} <= known


@pytest.mark.parametrize("name", ["a.tif", "b.ome.tiff", "c.zarr/0/1", "D.TIF", "notes.txt", ".a.tif", "deep/a.tif"])
def test_what_counts_there_is_what_would_count_here(tmp_path, name):
    from biom3d_workflow.volumes import list_volumes

    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert server.is_volume(name) == bool(list_volumes(str(tmp_path)))


@pytest.mark.system
@pytest.mark.parametrize("profile", ["local", "docker"])
@pytest.mark.parametrize("option", [[], ["-n"]])
def test_a_profile_without_a_server_is_refused_at_the_door(folder, profile, option):
    write_request("models: {m: }", [HERE, THERE], HEADER)
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles" / profile), *option)
    lines = [line for line in (done.stderr + done.stdout).splitlines() if not line.startswith("Using workflow")]
    assert (done.returncode, len(lines)) == (1, 1)
    assert lines[0].startswith(f"{TABLE}:3: location: data set 'X' lies on the server; give a profile whose executor ")


@pytest.mark.system
def test_without_running_anything_what_was_noted_counts(folder):
    write_request(MODEL, [THERE], HEADER)
    for path in ("data/x/images", "data/x/masks", "logs/m/fold_0", "logs/m/fold_1"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        manifest.write_manifest(manifest.Manifest(path, ()), Path.cwd())
    done = run_snakemake(*LOCAL, "--rulegraph")
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout
    assert '"train"' not in done.stdout


@pytest.mark.system
def test_a_host_that_cannot_be_reached_is_told_before_anything_starts(folder):
    write_request("models: {m: }", [HERE, THERE], HEADER)
    Path("none").touch()
    words = ["--host-address", "127.0.0.1", "--host-port", "1", "--host-config", "none"]
    done = run_snakemake("--workflow-profile", str(ROOT / "profiles/docker"), *words, "-n")
    assert "\n127.0.0.1: nothing listens" in f"\n{done.stdout}"
    assert "Traceback" not in done.stdout + done.stderr
