"""The container engine of a host over our SSH connection: a real Docker Engine behind a real sshd."""

import re
import subprocess
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from biom3d.errors import ContainerError
from tests.remote.server import run, wait_for

pytestmark = pytest.mark.system


@pytest.fixture
def member(account):
    """The account may use Docker."""
    subprocess.run(["usermod", "-aG", "docker", account.name], check=True)
    yield account
    subprocess.run(["gpasswd", "-d", account.name, "docker"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def image(docker_client, tmp_path_factory):
    """An image with a shell in it, made of the shell of this machine."""
    root = tmp_path_factory.mktemp("image")
    for path in ("/bin/dash", "/bin/sleep"):
        libraries = re.findall(r"/[^ ]*", run("ldd", path))
        run("cp", "--parents", "-L", path, *libraries, root)
    name = f"b3d-c-dial:{uuid.uuid4().hex[:8]}"
    run("tar", "-C", root, "-cf", root.with_suffix(".tar"), ".")
    run("docker", "import", root.with_suffix(".tar"), name)
    yield name
    docker_client.images.remove(name)


@pytest.fixture
def start(make_host, member, image):
    """Starts containers on the host."""
    host, made = make_host(), []

    def run(script: str):
        name = f"b3d-c-{uuid.uuid4().hex[:8]}"
        made.append(
            host.engine().containers.run(
                image, ["/bin/dash", "-c", script], network_mode="none", detach=True, name=name
            )
        )
        return made[-1]

    run.host = host
    yield run
    for container in made:
        container.remove(force=True)


def test_a_container_runs_and_says_its_exit_code(start):
    assert start("exit 3").wait()["StatusCode"] == 3


def test_connections_that_wait_for_a_request_are_closed_when_channels_lack(make_host, member):
    def dialled() -> bool:
        return not subprocess.run(["pgrep", "-u", member.name, "-f", "dial-stdio"], capture_output=True).returncode

    host = make_host()
    host.engine().ping()
    assert dialled()
    host._pool.when_full()
    wait_for(lambda: not dialled())
    assert host.engine().ping()


def test_log_lines_come_as_they_are_written(start):
    container, seen = start("for i in 1 2 3; do echo $i; sleep 0.5; done"), []
    for chunk in container.logs(stream=True, follow=True):
        seen.append((chunk, time.monotonic()))
    assert b"".join(chunk for chunk, _ in seen) == b"1\n2\n3\n"
    assert seen[-1][1] - seen[0][1] > 0.8


def test_many_logs_are_followed_at_once_on_few_connections(start):
    containers = [start("sleep 1; echo done") for _ in range(12)]
    with ThreadPoolExecutor(12) as threads:
        assert set(threads.map(lambda c: b"".join(c.logs(stream=True, follow=True)), containers)) == {b"done\n"}
    assert sum(slot.link is not None for slot in start.host._pool._slots) <= 3


def test_requests_use_the_same_channel_again(start, server):
    client = start.host.engine()
    client.ping()
    commands = server.log.read_text().count("Starting session: command")
    for _ in range(20):
        client.ping()
    assert server.log.read_text().count("Starting session: command") == commands


def test_after_a_cut_the_engine_answers_again(make_host, member, proxy):
    host = make_host(port=proxy.port)
    host.engine().ping()
    proxy.cut()
    assert host.engine().ping()


def test_a_log_that_is_followed_ends_when_the_line_is_cut(make_host, member, image, proxy):
    host = make_host(port=proxy.port)
    container = host.engine().containers.run(image, ["/bin/dash", "-c", "echo 1; sleep 30"], detach=True)
    try:
        lines = container.logs(stream=True, follow=True)
        assert next(lines) == b"1\n"
        threading.Timer(0.2, proxy.cut).start()
        assert list(lines) == []  # whether the container has ended is another question
        container.reload()
        assert container.status == "running"
    finally:
        host.engine().containers.get(container.id).remove(force=True)


def test_without_permission_it_is_told_what_to_do(ssh_host):
    with pytest.raises(ContainerError, match=r"no permission to use the container engine.*group 'docker'"):
        ssh_host.engine()


def test_where_no_engine_listens_it_is_told_what_to_do(make_host):
    with pytest.raises(ContainerError, match=r"no container engine answers \(/no/such.sock\); install Docker"):
        make_host(engine_socket="/no/such.sock").engine()
