# What happens before Snakemake asks what is old, before the first job and after the last. No rules here.
import atexit
import gc
import shutil

from biom3d_workflow import former, lock, makers, orphans, renamed, replaces
from biom3d_workflow.announce import LOGGER, Announcer, Idle, Todo, ask, describe
from biom3d_workflow.invocation import changes
from biom3d_workflow.measured import fold_seconds
from biom3d_workflow.outcome_table import PARTLY
from biom3d_workflow.stopping import Stopper, hear
from snakemake.ioflags import is_flagged
from snakemake.logging import logger


def say(line):
    print(line, file=sys.stderr)


def take_lock():
    """See `lock`. Snakemake's own outlives a killed Snakemake: whoever has ours removes it."""
    try:
        held = lock.hold(Path.cwd())
    except lock.HeldError as error:
        raise ConfigurationError(str(error)) from None
    except OSError as error:
        text = lock.holder_text(Path.cwd())
        raise ConfigurationError(
            text
            or f"'{lock.FILE}' cannot be written: {error.strerror}; no run can work here"
        ) from None
    atexit.register(lock.let_go, held)


def is_quiet():
    """Nobody works here: neither another run nor jobs that outlived one; who does is told."""
    if text := lock.holder_text(Path.cwd()):
        say(f"{text}. It may do meanwhile what is told here")
    elif left := orphans.find(Path.cwd()):
        say(
            f"{orphans.describe(left)}; the next run ends them, and goes on where they are"
        )
    else:
        return OPTIONS.executor != slurm.EXECUTOR or not slurm.find_obstacle(Path.cwd())
    return False


def set_right():
    """Before Snakemake asks what is old: what a killed run left, and what of former results is asked for again."""
    with contextlib.suppress(PermissionError):  # of somebody who may only look
        shutil.rmtree(".snakemake/locks", ignore_errors=True)
        kept.settle(say)
        former.give_identities(IDENTITIES)
        changed = kept.bring_back(IDENTITIES.of, say)
        followed = renamed.follow(PROJECT, IDENTITIES.of, say)
        if OPTIONS.dryrun:
            atexit.register(put_back, changed, followed)


def put_back(changed, followed):
    """A dry run has seen what a run would find; it leaves everything as it was."""
    for old, new in followed:
        renamed.rename(new, old)
    kept.take_away(changed)
    if changed or followed:
        say("that is what a run would do first; -n has left everything as it was")


def jobs_to_run():
    return [
        kept.Job(
            job.rule.name,
            tuple(job.wildcards),
            tuple(str(f) for f in job.output if not is_flagged(f, "temp")),
            str(job.params.identity),
            tuple(str(f) for f in job.output if is_flagged(f, "temp")),
            str(job.benchmark or ""),
        )
        for job in workflow.dag.needrun_jobs(exclude_finished=False)
        if hasattr(job.params, "identity")
    ]


def keep_old_results():
    """See `kept`; without it nothing may be removed."""
    try:
        kept.keep(jobs_to_run())
    except OSError as error:
        raise ConfigurationError(
            f"old results cannot be kept in '{kept.KEPT}' ({error}), so none is replaced;"
            " free some space, or give write access there, and run again"
        ) from None


def tell_replaced():
    jobs = jobs_to_run() if workflow.dag else []  # none where it could not be made
    for line in replaces.describe(jobs):
        say(line)


def make_plan():
    """What the run is going to do, in words, and the models it replaces; a dry run is then at its end."""
    jobs = [
        Todo(
            job.rule.name,
            job.wildcards_dict,
            tuple(map(str, job.output)),
            # of others it is not told, and costs a second for 2,000 rows
            str(job.params.identity) if job.rule.name == "train" else "",
        )
        for job in workflow.dag.needrun_jobs(exclude_finished=False)
    ]
    cores = workflow._cores if workflow.local_exec else None
    plan, replaced = describe(
        PROJECT, jobs, cores, measure, server_settings() not in (None, UNKNOWN)
    )
    settings = workflow.output_settings
    is_list = settings.printshellcmds or settings.verbose or settings.quiet
    if workflow.dryrun and not is_list:
        snakemake_patches.end_after_plan(workflow)
        plan += "\n\nNothing was done (-n). The list of all jobs: add -p"
    return plan, replaced


def measure(model):
    """The seconds of a fold, where that is wanted and jobs run on this machine."""
    settings = workflow.output_settings.log_handler_settings[LOGGER]
    if not (settings.measure and workflow.local_exec):
        return None
    return fold_seconds(PROJECT, model, min(workflow._cores, 8), say)


def agree(plan, replaced):
    """Ask before a trained model is replaced, where that is wanted; say whether the plan was shown with it."""
    settings = workflow.output_settings.log_handler_settings[LOGGER]
    if not settings.ask or workflow.dryrun:
        return False
    try:
        return ask(plan, replaced)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def tell_outcome():
    """The table, whatever happened."""
    return RUN.tell(STOPPER.was_asked)


def end_well():
    """The table and the page; rows that failed in part make the run fail, though each of its jobs ended well."""
    lines = tell_outcome()
    kept.settle(say)
    write_report()
    if partly := sum(line.state == PARTLY for line in lines):
        raise ConfigurationError(
            f"{partly} row{'s' if partly > 1 else ''} failed in part: see the table above (logs/outcome.txt)"
        )


def tell_idle(words):
    """The same where nothing was to be done, which is no run to Snakemake."""
    say(words)
    RUN.start()
    end_well()


HAS_OUR_LOGGER = LOGGER in workflow.output_settings.log_handler_settings
OPTIONS = command_line() if workflow.is_main_process else None
if OPTIONS is None or (looks_only(OPTIONS) and not changes(OPTIONS)):
    pass  # others read our rules, or somebody looks at them
elif changes(OPTIONS):
    take_lock()
elif OPTIONS.dryrun:
    snakemake_patches.look_without_lock()
    if is_quiet():  # sets right too, so that it says what a run would do
        set_right()
    if not HAS_OUR_LOGGER:  # else the plan says it
        atexit.register(tell_replaced)
else:
    take_lock()
    refuse_missing_containers(OPTIONS.executor)
    refuse_unready_slurm(OPTIONS.executor)
    orphans.end(Path.cwd(), say)
    set_right()
    kept.offer_earlier(
        (
            (run, IDENTITIES.of("train", name, str(fold)))
            for name in PROJECT.trainable()
            for fold, run in zip(PROJECT.models[name].folds, PROJECT.models[name].runs)
        ),
        is_forced=bool(OPTIONS.forceall or OPTIONS.forcerun or OPTIONS.force),
    )
    kept.offer_predictions(
        (f"data/pred/{model}/{name}", IDENTITIES.of("predict", model, name), files)
        for model, name in PROJECT.pairs()
        if (files := PROJECT.inputs(PROJECT.datasets[name])[0])
    )
    orphans.mark(Path.cwd())

if OPTIONS is not None and not looks_only(OPTIONS):
    for line in makers.describe(PROJECT, IDENTITIES.numbers):
        say(line)

STOPPER = Stopper(say)
if workflow.is_main_process:
    hear()
    # Snakemake now makes its graph, of objects that all stay: looking for garbage in it takes a quarter of the time.
    gc.disable()
    if HAS_OUR_LOGGER:
        logger.addFilter(Announcer(make_plan, agree))
    if OPTIONS is not None and not (looks_only(OPTIONS) or OPTIONS.dryrun):
        logger.addFilter(Idle(tell_idle))


onstart:
    gc.enable()
    refuse_missing_containers(executor())
    refuse_unready_slurm(executor())
    if not HAS_OUR_LOGGER:
        tell_replaced()
    keep_old_results()
    RUN.start()
    if workflow.is_main_process:
        STOPPER.listen(workflow.local_exec)


onsuccess:
    STOPPER.end()
    end_well()


onerror:
    STOPPER.end()
    stop_rest_in_slurm()
    if not (STOPPER.was_asked and Path("results/summary.csv").exists()):
        RUN.summarise_passed()  # else the summaries of before stay
    tell_outcome()
    kept.settle(say)
    write_report()
