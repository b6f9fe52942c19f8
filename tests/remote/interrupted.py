"""A group of three commands that is interrupted in each of them, at its start, in its middle and at its end."""

from biom3d.errors import JobError
from biom3d.remote import verbs
from biom3d.remote.job import LABEL, Command
from tests.remote.server import wait_for
from tests.remote.test_lifecycle import Bench, in_thread

MEMBERS = ("a", "b", "c")
MOMENTS = ("start", "middle", "end")

# A member works in NAME.partial, as ours do, and fails if its result is there already, as a training does. At each
# moment it waits for ever, once. What it has half is gone on with.
MEMBER = """\
halt() {{ if [ ! -e {name}-$1 ]; then touch {name}-$1; while :; do sleep 0.02; done; fi; }}
[ ! -e {name} ] || {{ echo "{name} exists"; exit 2; }}
halt start
mkdir -p {name}.partial
[ -e {name}.partial/half ] || {{ echo {name} >>begun; touch {name}.partial/half; }}
halt middle
mv {name}.partial {name}
halt end
echo {name} >>ended
"""


def interrupt_each_member(bench: Bench) -> None:
    """Run the group, each moment interrupted in another way; assert that nothing ran twice after it had ended well."""
    commands = tuple(Command(name, MEMBER.format(name=name), makes=(name,)) for name in MEMBERS)
    outputs = " ".join((*MEMBERS, "begun", "ended"))

    def begin():
        return in_thread(bench, "", commands=commands, outputs=outputs)

    thread, errors = begin()
    for member in MEMBERS:
        for moment, interrupt in zip(MOMENTS, (_press_ctrl_c, _kill, _cancel), strict=True):
            _wait_at(bench, f"{member}-{moment}")
            is_over = interrupt(bench)
            if is_over:
                thread.join(60)
                assert isinstance(errors.pop(), JobError)
                bench.stop.clear()
                thread, errors = begin()
    thread.join(60)
    assert errors == []
    assert bench.text("begun").split() == list(MEMBERS)
    assert bench.text("ended").split() == list(MEMBERS)
    assert all((bench.folder / member / "half").exists() for member in MEMBERS)
    assert bench.containers() == []


def _wait_at(bench: Bench, name: str) -> None:
    def is_there() -> bool:
        is_at = any((work / name).exists() for work in bench.work_folders())
        return is_at and any(one.status == "running" for one in bench.containers())

    wait_for(is_there, name)


def _press_ctrl_c(bench: Bench) -> bool:
    bench.stop.set()
    return True


def _kill(bench: Bench) -> bool:
    bench.wait_for_container().kill()
    return False


def _cancel(bench: Bench) -> bool:
    runtime = bench.runner.runtime
    job_id = bench.wait_for_container().labels[LABEL]
    verbs.cancel(bench.host, verbs.find_job(verbs.list_jobs(bench.host, runtime), job_id), runtime, "ann on laptop")
    return True
