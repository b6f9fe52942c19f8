"""Jobs in containers: an engine, Docker or Podman, supervises them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from biom3d.engine import translated
from biom3d.errors import Biom3dError, LostConnection
from biom3d.remote import gpus
from biom3d.remote.container import GONE, Place, container_name, end_of, plan_container
from biom3d.remote.ends import GRACE_S, LAST_LINES, REMOVED, End
from biom3d.remote.engine import Facts, image_id, read_facts
from biom3d.remote.follow import Follower, shown_line, split_lines
from biom3d.remote.host import Host, Say
from biom3d.remote.job import LABEL
from biom3d.remote.processes import Marked, find_marked
from biom3d.remote.runtime import CONTAINER, Capacity, Found, Launch, Seen, Software, seen, seen_running, starter

if TYPE_CHECKING:
    from docker.models.containers import Container

CONFLICT = 409  # HTTP: the name is taken


class Containers:
    """The engine of one host; see `runtime.Runtime`."""

    kind = CONTAINER

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._facts: Facts | None = None

    def capacity(self) -> Capacity:
        """Return the cores and the memory of the engine's host."""
        facts = self._known_facts()
        return Capacity(facts.cores, facts.memory_mb)

    def _known_facts(self) -> Facts:
        """Return what the engine says of its host, which is asked once."""
        with self._lock:
            if self._facts is None:
                self._facts = read_facts(self._host.engine(), self._host.name)
            return self._facts

    def find_software(self, image: str) -> Software:
        """Return the image."""
        return Software(image_id(self._host.engine(), self._host.name, image), image)

    def check(self, images: Iterable[str]) -> None:
        """Raise ContainerError if one of the images is not there."""
        for image in images:
            self.find_software(image)

    def find(self, job_id: str) -> Found | None:
        """Return what the engine knows of the job's container."""
        container = self._container(job_id)
        if container is None:
            return None
        end = end_of(container.attrs["State"])
        is_running = end is None and container.attrs["State"]["Status"] != "created"
        return Found(is_running, end, starter(container.labels))

    def start(self, launch: Launch) -> bool:
        """Create and start the job's container, or say that a client that was faster with the same job has made it."""
        arguments = plan_container(launch, Place(self._known_facts(), self._host.user(), gpus.LEASES))
        with translated(self._host.name, f"starting a container of image '{launch.spec.image}'"):
            return create_or_adopt(self._host.engine().containers, arguments)

    def follow(self, job_id: str, say: Say) -> Follower:
        """Return what shows the container's log and waits for its end."""
        return Follower(self.source(job_id), say)

    def source(self, job_id: str) -> "ContainerSource":
        """Return the container's log."""
        return ContainerSource(self._host, container_name(job_id))

    def remove(self, job_id: str) -> None:
        """Remove the job's container; one that runs is left alone: another client may have started it anew."""
        import docker.errors

        name = container_name(job_id)
        with translated(self._host.name, f"removing {name}"):
            try:
                self._host.engine().api.remove_container(name)
            except docker.errors.APIError as error:
                if error.status_code not in GONE and "running" not in str(error):  # Podman's answer is 500
                    raise

    def running(self) -> list[dict[str, str]]:
        """Return the labels of all jobs that run on the host; engine and processes are asked at the same time."""
        others: list[Marked] = []
        asking = threading.Thread(target=lambda: others.extend(self._marked()), daemon=True)
        asking.start()
        with translated(self._host.name, "listing containers"):
            containers = self._host.engine().api.containers(filters={"label": LABEL})  # without a look at each
            known = {container["Labels"][LABEL]: container["Labels"] for container in containers}
        asking.join()
        return [*known.values(), *(other.labels for other in others if other.labels[LABEL] not in known)]

    def _marked(self) -> list[Marked]:
        with suppress(Biom3dError):  # the engine, asked at the same time, tells of a lost line
            return find_marked(self._host)
        return []

    def list_jobs(self) -> list[Seen]:
        """Return the jobs that the engine knows, and those that run without one."""
        is_rootless, uid = self._known_facts().is_rootless, str(self._host.user()[0])
        with translated(self._host.name, "listing jobs"):
            every = self._host.engine().containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
        found = []
        for container in every:
            owner = uid if is_rootless else str(container.attrs["Config"].get("User") or "0").partition(":")[0]
            found.append(_seen(container, owner, uid))
        known = {job.id for job in found}
        others = [other for other in find_marked(self._host) if other.labels[LABEL] not in known]
        return [*found, *(seen_running(other, uid) for other in others)]

    def _container(self, job_id: str) -> "Container | None":
        import docker.errors

        with translated(self._host.name, f"looking for {container_name(job_id)}"):
            try:
                return self._host.engine().containers.get(container_name(job_id))
            except docker.errors.NotFound:
                return None


def create_or_adopt(containers: Any, arguments: dict[str, Any]) -> bool:
    """Start the container, or leave it to the client that was faster with the same job; return whether it is ours."""
    import docker.errors

    try:
        made = containers.create(**arguments)
    except docker.errors.APIError as error:
        if error.status_code == CONFLICT:
            return False
        raise
    try:
        made.start()
    except docker.errors.APIError as error:
        if error.status_code in GONE:  # another client took it for left over, and makes its own
            return False
        with suppress(docker.errors.APIError):
            made.remove(force=True)
        raise
    return True


def _seen(container: "Container", owner: str, uid: str) -> Seen:
    state = container.attrs["State"]
    has_ended = state["Status"] in ("exited", "dead")
    since = state.get("FinishedAt" if has_ended else "StartedAt") or ""
    since = since if not since.startswith("0001") else container.attrs["Created"]
    words = f"exit {state['ExitCode']}" if has_ended else state["Status"]
    return seen(container.labels, words, since, owner, uid, CONTAINER)


class ContainerSource:
    """The log of one container; see `follow.Source`."""

    def __init__(self, host: Host, name: str) -> None:
        self._host, self.name = host, name
        self._seen = ""  # the engine's time stamp of the last line shown, and how many lines were shown with it:
        self._same = 0  # Podman's stamps are whole seconds

    def watch(self, show: Callable[[str], None]) -> End:
        """Show lines until the container has ended."""
        with translated(self._host.name, f"reading the log of {self.name}"):
            return self._watch(show)

    def stop(self) -> None:
        """Ask the container to end, kill it when it does not."""
        import docker.errors

        with translated(self._host.name, f"stopping {self.name}"), suppress(docker.errors.NotFound):
            self._container().stop(timeout=GRACE_S)

    def print(self, say: Say) -> None:
        """Say all lines that the engine has kept."""
        with translated(self._host.name, f"reading the log of {self.name}"):
            for line in split_lines(self._container().logs(stream=True, follow=False)):
                say(line.decode(errors="replace"))

    def _watch(self, show: Callable[[str], None]) -> End:
        import docker.errors

        try:
            self._show(show, follow=True)
            end = end_of(self._host.engine().api.inspect_container(self.name)["State"])
            if end is not None:  # a connection may have broken just before, or the engine turned its log over
                self._show(show, follow=False, tail=LAST_LINES)
        except docker.errors.APIError as error:
            if error.status_code in GONE:  # somebody has removed it
                return REMOVED
            raise
        if end is None:
            raise LostConnection(f"{self._host.name}: the log of {self.name} broke off")
        return end

    def _show(self, show: Callable[[str], None], **options: Any) -> None:
        since = {"since": _seconds(self._seen)} if self._seen else {}
        chunks = self._host.engine().api.logs(self.name, stream=True, timestamps=True, **options, **since)
        for line in self._new_lines(chunks):
            show(line)

    def _container(self) -> "Container":
        return self._host.engine().containers.get(self.name)

    def _new_lines(self, chunks: Iterator[bytes]) -> Iterator[str]:
        """Yield the lines of a log that were not yet seen, without the time stamp that tells so."""
        last, again = self._seen, self._same
        for raw in split_lines(chunks):
            stamp, _, text = raw.partition(b" ")
            moment = stamp.decode("ascii", "replace")
            if moment < last:
                continue
            if moment == last and again:
                again -= 1
                continue
            last = ""  # what comes now is new, also where stdout and stderr are not in order
            self._same = self._same + 1 if moment == self._seen else 1
            self._seen = moment
            yield shown_line(text)


def _seconds(stamp: str) -> float:
    """Return the engine's time stamp as seconds, a little early: nanoseconds are cut, and seen lines are dropped."""
    return datetime.fromisoformat(stamp).timestamp() - 0.001
