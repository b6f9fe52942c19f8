# What happens before Snakemake asks what is old, before the first job and after the last. No rules here.
from biom3d_workflow import former

# A dry run too, so that it says what a run would do; not where others only look, or the rules are read for a job.
MAY_WRITE = (
    workflow.is_main_process
    and command_line() is not None
    and not looks_only(command_line())
)

if MAY_WRITE:
    former.give_identities(IDENTITIES)


onstart:
    refuse_missing_containers()
    refuse_unready_slurm()
    RUN.start()


onsuccess:
    tell_outcome()


onerror:
    stop_rest_in_slurm()
    RUN.summarise_passed()
    tell_outcome()
