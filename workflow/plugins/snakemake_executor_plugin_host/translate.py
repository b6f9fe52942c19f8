"""Snakemake's words -> ours: settings to a host, a job or a group of jobs to a `JobSpec`."""

import fcntl
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from biom3d.errors import ConfigError
from biom3d.remote.handover import take
from biom3d.remote.job import Command, JobSpec, Resources, job_name, output_name
from biom3d.remote.lifecycle import Runner
from biom3d.remote.profile import LOCAL_FOLDER, devices, keep_policy, open_runtime
from biom3d.remote.runtime import VENV

ENVIRONMENT = "environment"  # stands for the image where there are no containers


def make_runner(settings: Any, workdir: Path) -> Runner:
    """Return what runs jobs on the host that the settings name; nothing is connected yet."""
    host = take(settings, workdir)
    runtime = open_runtime(settings, host)
    return Runner(host, workdir / LOCAL_FOLDER / "ended", devices(settings), runtime, keep_policy(settings))


def lock(workdir: Path) -> IO[str]:
    """Lock the working folder for one client at a time, until the file returned is closed or we die.

    Snakemake's own lock outlives a killed Snakemake, which would then not go on by itself; so profiles say `nolock`.
    """
    folder = workdir / LOCAL_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / "lock", "a")  # noqa: SIM115 - stays open as long as it locks
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f"another Snakemake works in '{workdir}'; wait until it has ended, or stop it") from None
    return file


def needed(jobs: Iterable[Any], default_image: str | None) -> tuple[list[str], int]:
    """Return the images that the jobs name, and the largest number of GPUs that one of them wants.

    Raises:
        ConfigError: one of them can only run here, or names a file that cannot be had elsewhere.
    """
    ours = [job for job in jobs if not job.is_local and not job.is_norun]
    for job in ours:
        _refuse_unsupported(job)
        for name, files in ((job_name, job.input), (output_name, job.output)):
            for file in files:
                name(str(file))
    images = {job.container_img_url or default_image for job in ours} - {None}
    return sorted(map(_reference, images)), max((_number(job, "gpu") for job in ours), default=0)


def first_inputs(jobs: Iterable[Any]) -> list[tuple[str, Path]]:
    """Return the inputs that none of the jobs makes, each once: what is there before the first of them starts."""
    ours = [job for job in jobs if not job.is_local and not job.is_norun]
    made = {str(file) for job in ours for file in job.output}
    paths = dict.fromkeys(str(file) for job in ours for file in job.input if str(file) not in made)
    return [(job_name(path), Path(path)) for path in paths]


def usual_image(settings: Any) -> str | None:
    """Return the image for rules that name none; where there are no containers any word will do."""
    return settings.image or (ENVIRONMENT if settings.runtime == VENV else None)


def translate_job(job: Any, default_image: str | None) -> JobSpec:
    """Return the job, or the group of jobs in their order, as one `JobSpec`.

    What only members of a group read, and Snakemake would remove afterwards, is no output: it stays where it is made.
    """
    members = [member for level in job.toposorted for member in level] if job.is_group() else [job]
    for member in members:
        _refuse_unsupported(member)
    made = {str(file) for member in members for file in member.output}
    inputs = dict.fromkeys(str(file) for member in members for file in member.input if str(file) not in made)
    return JobSpec(
        name=_name(job, members),
        commands=tuple(_command(member) for member in members),
        image=_image(members, default_image),
        inputs=tuple((job_name(path), Path(path)) for path in inputs),
        outputs=tuple(output_name(str(file)) for member in members for file in _wanted(member, members)),
        logs=tuple(output_name(str(file)) for member in members for file in member.log),
        resources=_resources(members),
        stays=tuple(name for member in members for name in _stays(member)),
        was_cut_short=any(_is_marked(member) for member in members),
    )


def _stays(member: Any) -> Iterable[str]:
    """Return which products of a member nobody but later jobs of ours reads: folders that Snakemake then removes."""
    if member.dag.workflow.storage_settings.notemp:
        return
    users = member.dag.depending[member]
    for file in member.output:
        readers = [user for user, files in users.items() if file in files]
        is_inner = bool(readers) and not any(user.is_local or user.is_norun for user in readers)
        if is_inner and _has_flag(file, "temp") and _has_flag(file, "directory"):
            yield output_name(str(file))


def _is_marked(member: Any) -> bool:
    """Say whether Snakemake was ended before it learned how the last attempt of the job had ended."""
    workflow = member.dag.workflow
    return bool(workflow.async_run(workflow.persistence.incomplete(member)))


def _wanted(member: Any, members: Sequence[Any]) -> Iterable[Any]:
    """Return what must come back of a member's products: all but temporary files of the group."""
    users = member.dag.depending[member]
    outside = {str(file) for user, files in users.items() if user not in members for file in files}
    inside = {str(file) for user, files in users.items() if user in members for file in files}
    for file in member.output:
        is_inner = _has_flag(file, "temp") and str(file) in inside and str(file) not in outside
        if not is_inner:
            yield file
    if member.benchmark:
        yield member.benchmark


def _command(member: Any) -> Command:
    benchmark = output_name(str(member.benchmark)) if member.benchmark else None
    return Command(
        rule=member.rule.name,
        shell=member.shellcmd,
        threads=int(member.threads),
        benchmark=benchmark,
        makes=tuple(output_name(str(file)) for file in [*member.output, *member.log]),
        log=output_name(str(member.log[0])) if member.log else None,
        touch=tuple(output_name(str(file)) for file in member.output if _has_flag(file, "touch")),
    )


def _resources(members: Sequence[Any]) -> Resources:
    """Return what the whole group needs: its members run one after the other."""
    return Resources(
        threads=max(int(member.threads) for member in members),
        mem_mb=max(_number(member, "mem_mb") for member in members),
        runtime_min=_runtime(members),
        disk_mb=max(_number(member, "disk_mb") for member in members),
        gpus=max(_number(member, "gpu") for member in members),
    )


def _runtime(members: Sequence[Any]) -> int:
    """Return the sum of the members' time limits; one without a limit leaves the group without."""
    limits = [_number(member, "runtime") for member in members]
    return sum(limits) if all(limits) else 0


def _number(member: Any, resource: str) -> int:
    value = member.resources.get(resource, 0)
    return int(value) if isinstance(value, int | float) else 0


def _image(members: Sequence[Any], default: str | None) -> str:
    images = {member.container_img_url or default for member in members}
    rules = ", ".join(sorted({member.rule.name for member in members}))
    if len(images) > 1 and default != ENVIRONMENT:
        raise ConfigError(f"rules {rules} form one group and so need one image; they name {len(images)}")
    image = max(images, key=str)
    if not image:
        raise ConfigError(f"rule {rules} has no image; give it a `container:`, or a default: --host-image IMAGE")
    return _reference(image)


def _reference(url: Any) -> str:
    return str(url).removeprefix("docker://")


def _refuse_unsupported(member: Any) -> None:
    name = member.rule.name
    if not member.is_shell and not member.is_norun:
        raise ConfigError(
            f"rule {name} has a script, run, notebook or wrapper, which needs Snakemake where it runs;"
            f" make it a shell: rule, or let it run here: localrules: {name}"
        )
    if member.is_shadow or any(_has_flag(file, flag) for file in member.output for flag in ("pipe", "service")):
        raise ConfigError(f"rule {name}: shadow folders, pipes and services work only here; add: localrules: {name}")


def _has_flag(file: Any, flag: str) -> bool:
    return bool(getattr(file, "flags", {}).get(flag))


def _name(job: Any, members: Sequence[Any]) -> str:
    """Return what people call the job: the group's name, else rule and wildcards."""
    if job.is_group():
        return str(job.groupid)
    wildcards = " ".join(str(value) for value in members[0].wildcards_dict.values())
    return f"{members[0].rule.name} {wildcards}".strip()
