# What happens before Snakemake asks what is old, before the first job and after the last. No rules here.
import atexit
import shutil

from biom3d_workflow import former, kept, lock, orphans, replaces
from biom3d_workflow.invocation import changes
from snakemake.ioflags import is_flagged


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
    """Nobody works here: neither another run nor jobs that outlived one."""
    if lock.holder_text(Path.cwd()) or orphans.find(Path.cwd()):
        return False
    return OPTIONS.executor != slurm.EXECUTOR or not slurm.find_obstacle(Path.cwd())


def set_right():
    """Before Snakemake asks what is old: what a killed run left, and what of former results is asked for again."""
    with contextlib.suppress(PermissionError):  # of somebody who may only look
        shutil.rmtree(".snakemake/locks", ignore_errors=True)
        kept.settle(say)
        former.give_identities(IDENTITIES)
        kept.bring_back(IDENTITIES.of, say)


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


def tell_replaced():
    jobs = jobs_to_run() if workflow.dag else []  # none where it could not be made
    for line in replaces.describe(jobs):
        say(line)


OPTIONS = command_line() if workflow.is_main_process else None
if OPTIONS is None or (looks_only(OPTIONS) and not changes(OPTIONS)):
    pass  # others read our rules, or somebody looks at them
elif changes(OPTIONS):
    take_lock()
elif OPTIONS.dryrun:
    if is_quiet():  # sets right too, so that it says what a run would do
        set_right()
    atexit.register(tell_replaced)
else:
    take_lock()
    refuse_unready_slurm(OPTIONS.executor)
    orphans.end(Path.cwd(), say)
    set_right()
    orphans.mark(Path.cwd())


onstart:
    refuse_missing_containers()
    refuse_unready_slurm(executor())
    tell_replaced()
    kept.keep(jobs_to_run())
    RUN.start()


onsuccess:
    tell_outcome()
    kept.settle(say)


onerror:
    stop_rest_in_slurm()
    RUN.summarise_passed()
    tell_outcome()
    kept.settle(say)
