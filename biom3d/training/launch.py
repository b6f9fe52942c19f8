"""`train --processes N`: the same command N times on this machine, started, watched and ended together.

torchrun would do it too, but tells of an error in a page; here it is one line and the exit code of the step. The
processes meet in a file instead of at a port, so it works in a container without network, and no other user of the
machine can join. Each holds one end of a pipe: when the launcher is killed, they notice and end as well.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from biom3d.errors import Biom3dError, InputError

LOST = 3  # exit code of a process that ended because another one did; never seen outside
STOPPED = 130
GRACE_S = 10.0  # until processes that do not end by themselves are killed
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass(frozen=True)
class Worker:
    """One process of the training. The first speaks for itself, what the others say is kept in `said`."""

    rank: int
    process: subprocess.Popen[bytes]
    said: Path

    @property
    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self.process.poll()


def train_together(argv: Sequence[str], count: int) -> None:
    """Run `python -m biom3d.train` with `argv` in `count` processes to its end.

    Raises:
        Biom3dError: one failed and nobody has said so yet.
        SystemExit: the first process has said all; the code is its own.
        KeyboardInterrupt: stopped, and nobody has said so yet.
    """
    with tempfile.TemporaryDirectory(prefix="biom3d-train-") as folder:
        with _started(argv, count, Path(folder)) as workers:
            ended: SimpleQueue[Worker] = SimpleQueue()
            for worker in workers:
                threading.Thread(target=_announce, args=(worker, ended), daemon=True).start()
            try:
                failed = _wait(workers, ended)
            except KeyboardInterrupt:
                _stop(workers)
                if workers[0].code == STOPPED:
                    raise SystemExit(STOPPED) from None
                raise
        if failed:
            raise _explain(failed, workers)


def end_with_launcher() -> None:
    """Watch the pipe from the launcher, which is our stdin: when it closes, stop, at the latest after `GRACE_S`."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)  # for a library that waits for a process that is gone and lets no signal through
        os._exit(STOPPED)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _started(argv: Sequence[str], count: int, folder: Path) -> Iterator[list[Worker]]:
    """Start the processes; at the end none is left."""
    reading, writing = os.pipe()
    workers: list[Worker] = []
    try:
        for rank in range(count):
            said = folder / f"{rank}.log"
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
            with open(said, "wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "biom3d.train", *argv, "--meeting", str(folder / "meeting")],
                    env={
                        "GLOO_SOCKET_IFNAME": LOOPBACK,
                        "NCCL_SOCKET_IFNAME": LOOPBACK,
                        **os.environ,
                        **{name: str(value) for name, value in place.items()},
                    },
                    stdin=reading,
                    stdout=None if rank == 0 else log,
                    stderr=None if rank == 0 else log,
                    start_new_session=True,  # Ctrl-C comes to us alone, and we stop them
                )
            workers.append(Worker(rank, process, said))
        os.close(reading)
        reading = -1
        yield workers
    finally:
        for worker in workers:
            if worker.code is None:
                worker.process.kill()
            worker.process.wait()
        for end in (reading, writing):
            if end >= 0:
                os.close(end)


def _announce(worker: Worker, ended: "SimpleQueue[Worker]") -> None:
    worker.process.wait()
    ended.put(worker)


def _wait(workers: Sequence[Worker], ended: "SimpleQueue[Worker]") -> list[Worker]:
    """Wait for the end of all; return those that failed by themselves, in order. The others are left to be killed.

    Survivors get a moment to notice by themselves: the first process may have its own words for the same mistake.
    """
    failed: list[Worker] = []
    deadline: float | None = None
    for _ in workers:
        try:
            worker = ended.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        if worker.code:
            failed.append(worker)
            deadline = deadline or time.monotonic() + GRACE_S
            if worker.rank == 0 and worker.code not in (LOST,):
                break
    return failed


def _stop(workers: Sequence[Worker]) -> None:
    for worker in workers:
        if worker.code is None:
            worker.process.terminate()
    deadline = time.monotonic() + GRACE_S
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, deadline - time.monotonic()))


def _explain(failed: Sequence[Worker], workers: Sequence[Worker]) -> BaseException:
    """Return what to raise: an exit where the first process has told its own mistake, else an error that names it."""
    first = workers[0].code
    if workers[0] in failed and first is not None and first > 0 and first != LOST:
        return SystemExit(first)
    causes = [worker for worker in failed if worker.code != LOST]
    if not causes:
        return Biom3dError("the processes of the training lost each other; run the same command again to go on")
    cause = causes[0]
    name, code = f"process {cause.rank + 1} of {len(workers)}", cause.code or 0
    if code < 0 or code == STOPPED:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "was stopped"
        why = ", perhaps because the memory was full" if code == -signal.SIGKILL else ""
        return Biom3dError(f"{name} {how}{why}; run the same command again: it goes on after the last whole epoch")
    text = cause.said.read_text(encoding="utf-8", errors="replace")
    if "Traceback" in text:
        sys.stderr.write(text)
    message = (text.strip().splitlines() or [f"exit code {code}"])[-1].removeprefix("train: error: ")
    return (InputError if code == InputError.exit_code else Biom3dError)(f"{name}: {message}")
