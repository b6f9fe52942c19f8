# Configuration and table, checked; what the rules look up. No rules here; the thinking is in ../lib, which has tests.
import contextlib
import functools
import shlex
import subprocess
import sys
from pathlib import Path

from biom3d_workflow import commands, copy_lines, kept, page, slurm, snakemake_patches
from biom3d_workflow.identity import Identities
from biom3d_workflow.image import OTHERS, find_image, find_learner, needs_containers
from biom3d_workflow.interpreter import find_obstacle, prefer_this_python
from biom3d_workflow.invocation import (
    EXECUTOR,
    UNKNOWN,
    find_server,
    has_containers,
    looks_only,
    read_options,
)
from biom3d_workflow.outcome import Run, find_unfinished
from biom3d_workflow.problems import report_text
from biom3d_workflow.project import load_project, wildcard, without_lost
from biom3d_workflow.software import find_software, step_numbers

snakemake_patches.rerun_by_identity()
snakemake_patches.remember_parameters()
snakemake_patches.ask_for_no_conda()
snakemake_patches.outlive_lost_files()


def settings_of(options):
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

    return ExecutorPluginRegistry().get_plugin(options.executor).get_settings(options)


@functools.cache
def command_line():
    """Snakemake's own reading of its command line, profiles included; rules are read before it is asked for it."""
    from snakemake.cli import parse_args

    if "--lint" in sys.argv:  # needs nothing, and should ask for nothing
        return None
    with contextlib.chdir(workflow.workdir_init):  # profiles are named from there
        return read_options(sys.argv, lambda words: parse_args(words)[1])


@functools.cache
def server_settings():
    """See `invocation.find_server`."""
    if not workflow.is_main_process:
        return UNKNOWN
    return find_server(command_line(), settings_of)


def config_files():
    """The last --configfile wins; then comes the one of the Snakefile, which stands last in this list."""
    return [*reversed(workflow.configfiles[:-1]), *workflow.configfiles[-1:]]


def load_checked_project():
    project = load_project(
        config,
        config_files(),
        workflow.config_settings.config,
        # Linting is about the rules: it passes on a fresh clone, where no images are yet.
        look_at_files="--lint" not in sys.argv,
        has_server=lambda: server_settings() is not None,
    )
    errors = [problem for problem in project.problems if not problem.is_warning]
    if errors:
        raise ConfigurationError(report_text(errors))
    if project.problems and workflow.is_main_process:
        print(report_text(project.problems), file=sys.stderr)
    return project


def find_images():
    """The image of our steps, and what learns and predicts."""
    try:
        return find_image(PROJECT.image), find_learner(PROJECT.engine, PROJECT.image)
    except ValueError as error:
        raise ConfigurationError(str(error))


def find_identities():
    """See `identity`."""
    inside = workflow.is_main_process and has_containers(command_line(), settings_of)
    variant = OTHERS.get(PROJECT.engine, ("", PROJECT.image))[1]
    return Identities(
        PROJECT,
        step_numbers(),
        find_software(PROJECT.image, IMAGE, inside),
        find_software(variant, LEARNER.image, inside),
    )


def look_at_server(wanted):
    """Ask what the data on the server are now, before Snakemake asks what is new; return what is missing, and why."""
    settings = server_settings() if wanted else None
    if settings is None or settings is UNKNOWN:
        return {}
    from biom3d.errors import Biom3dError
    from biom3d.remote.data import note_residents
    from biom3d.remote.handover import lend

    def say(line):
        print(line, file=sys.stderr)

    try:
        with lend(settings, Path.cwd()) as host:
            return note_residents(host, wanted, Path.cwd(), say)
    except Biom3dError as error:
        raise ConfigurationError(str(error)) from None


def leave_out(lost):
    """A data set that is not there fails alone."""
    try:
        project = without_lost(PROJECT, lost) if lost else PROJECT
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    for why in lost.values():
        print(f"warning: {why}; the other rows go on", file=sys.stderr)
    return project


def forget_other_servers():
    """What another server than this run's has of a training must be made again, so Snakemake has to know now."""
    settings = server_settings()
    is_held = any(Path("data/preprocessed").glob("*/on-server.json"))
    if not is_held or settings is UNKNOWN or command_line().dryrun:
        return
    from biom3d.remote.held import drop_elsewhere

    drop_elsewhere(Path("data/preprocessed"), settings.address if settings else None)


def refuse_missing_containers(name):
    """Another engine than ours is in no Python but that of its image; only our executor runs that."""
    if name != EXECUTOR and needs_containers(PROJECT.engine):
        raise ConfigurationError(
            f"engine '{PROJECT.engine}' runs only in its image; use a profile with containers:"
            " snakemake --workflow-profile docker"
        )


def refuse_unready_slurm(name):
    """Before anything is removed or submitted."""
    if name == slurm.EXECUTOR and (obstacle := slurm.find_obstacle(Path.cwd())):
        raise ConfigurationError(obstacle)


def stop_rest_in_slurm():
    if executor() == slurm.EXECUTOR:
        slurm.stop_rest(Path.cwd(), lambda line: print(line, file=sys.stderr))


def write_report():
    """The page, whatever happened, of what is there after all; that it cannot be written is told, and no more."""
    with contextlib.suppress(OSError):  # the page shows the file as it is then
        page.write_table(PROJECT.datasets.values())
    command = ["python", "-m", "biom3d.report", "page"]
    subprocess.run([*command, "--config", *map(str, config_files())], check=False)


def executor():
    """The name of what runs the jobs."""
    return workflow.executor_plugin.name


def copier(wildcards):
    """What brings the words of a step into its log and on the screen; elsewhere than here others name the step."""
    is_here = workflow.is_main_process and getattr(
        command_line(), "executor", None
    ) in (None, "local")
    program = Path(copy_lines.__file__)
    return shlex.join([sys.executable, "-ISs", str(program)]) if is_here else "tee -i"


if obstacle := find_obstacle():
    raise ConfigurationError(obstacle)
prefer_this_python()
PROJECT = load_checked_project()
IMAGE, LEARNER = find_images()
PROJECT = leave_out(look_at_server(PROJECT.on_server()))
forget_other_servers()
RUN = Run(PROJECT)
IDENTITIES = find_identities()


wildcard_constraints:
    dataset=wildcard(PROJECT.datasets),
    model=wildcard(PROJECT.models),
    fold=r"\d+",


def model_of(wildcards):
    return PROJECT.models[wildcards.model]


def dataset_of(wildcards):
    try:
        return PROJECT.datasets[wildcards.dataset]
    except KeyError as error:
        raise ConfigurationError(f"the table has no data set {error}") from None


def training_sets_of(wildcards):
    return PROJECT.training_sets(wildcards.model)


def images_of(wildcards):
    return PROJECT.inputs(dataset_of(wildcards))[0]


def masks_of(wildcards):
    """The masks of a data set; an empty list where there are none."""
    return PROJECT.inputs(dataset_of(wildcards))[1]


def training_files_of(wildcards):
    return PROJECT.training_inputs(wildcards.model)


def training_checks_of(wildcards):
    is_planned = Path(f"logs/{wildcards.model}/plan.yaml").exists()
    return checks_of(PROJECT.needed_checks(wildcards.model), is_planned)


def check_of(wildcards):
    is_predicted = Path(f"data/pred/{wildcards.model}/{wildcards.dataset}").exists()
    return checks_of([wildcards.dataset], is_predicted)


def checks_of(names, is_made):
    """The checks of data sets that must pass before something is made of them.

    Checks that are gone although it is made (somebody removed results/) are no reason to make it again.
    """
    files = [f"results/check/{name}.json" for name in names]
    return [file for file in files if not is_made or Path(file).exists()]


def earlier_run_of(wildcards):
    """The same training, which is taken, or a shorter one, to go on with, see `kept.offer_earlier`."""
    run = kept.EARLIER / f"logs/{wildcards.model}/fold_{wildcards.fold}"
    return [str(run)] if LEARNER.is_ours and run.is_dir() else []


def earlier_prediction_of(wildcards):
    """What the model predicted of the data set before it changed, see `kept.offer_predictions`."""
    folder = kept.EARLIER / f"data/pred/{wildcards.model}/{wildcards.dataset}"
    return [str(folder)] if LEARNER.is_ours and folder.is_dir() else []


def identity(rule):
    """The parameter by which Snakemake finds that a result is old; `rule` is the rule's own name."""
    return lambda wildcards: IDENTITIES.of(rule, *wildcards)


def told(function):
    """A parameter that is told to the step and is no reason to run it again, since it depends on `input`."""
    return lambda wildcards, input: function(wildcards)


def optional(option):
    """An input function for a file that a model option may name."""
    return lambda wildcards: (
        [PROJECT.watched_run(path)]
        if (path := model_of(wildcards).options[option])
        else []
    )


def runs_of(wildcards):
    model = model_of(wildcards)
    if model.is_given:  # its content is in the identity, so its age does not matter
        return [ancient(run) for run in model.runs]
    return [PROJECT.watched_run(run) for run in model.runs]


def metrics_of(wildcards):
    """The metrics of a prediction, where there are masks to compare with."""
    has_masks = bool(dataset_of(wildcards).masks)
    return (
        [f"results/{wildcards.model}/{wildcards.dataset}/metrics.json"]
        if has_masks
        else []
    )


def quality_of(wildcards):
    """What looks unusual of a prediction without masks, for the choice of pictures; a new table is no reason for new ones."""
    file = f"results/{wildcards.model}/{wildcards.dataset}/quality.csv"
    return [] if dataset_of(wildcards).masks else [ancient(file)]


def for_trained_models(*patterns):
    return [
        pattern.format(model=name)
        for name in PROJECT.trained()
        if name not in PROJECT.unusable
        for pattern in patterns
    ]


def for_pairs(*patterns):
    return [
        p.format(model=model, dataset=name)
        for model, name in PROJECT.pairs()
        for p in patterns
    ]


def for_evaluated_pairs(*patterns):
    return [
        p.format(model=model, dataset=name)
        for model, name in PROJECT.evaluated_pairs()
        for p in patterns
    ]


def report_files(wildcards):
    """Pictures and tables of the report."""
    return [
        *for_trained_models("results/{model}/curves.png"),
        *for_pairs("results/{model}/{dataset}/overlays"),
        *for_evaluated_pairs("results/{model}/{dataset}/metrics.csv"),
        *(["results/summary.csv"] if PROJECT.evaluated_pairs() else []),
    ]


def all_files(wildcards):
    return [
        *report_files(wildcards),
        *for_trained_models("results/{model}/{model}.zip"),
        *for_pairs(
            "results/{model}/{dataset}/labels", "results/{model}/{dataset}/quality.csv"
        ),
        *(["results/quality.csv"] if PROJECT.pairs() else []),
        *(f"results/check/{name}.unreadable" for name in PROJECT.unreadable),
        *(f"results/check/{name}.json" for name in PROJECT.partial),
        *find_unfinished(PROJECT),
    ]
