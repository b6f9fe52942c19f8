"""The container engine through the gate: a real engine, and a person who wants more than a job."""

import copy
import json
import os
import shutil
import subprocess
from urllib.parse import quote

import pytest

from tests.remote.conftest import account, server
from tests.remote.server import wait_for
from tests.server.gated import BY_NAME, SOCKET, Door, load_gate, opened, request, unchecked

__all__ = ["account", "server"]
pytestmark = pytest.mark.system
JOB, OTHER = os.urandom(12).hex(), os.urandom(12).hex()  # what a killed run leaves is not in the way


@pytest.fixture
def door(server, account, docker_client, base_image):
    with opened(server, account) as door:
        shared = door.folder.parent / "shared"
        door.join_engine()
        door.configure(images=[base_image], read_only=[str(shared)])
        shared.mkdir()
        (door.root / "jobs" / JOB).mkdir()
        (door.root / "jobs" / JOB / "run.sh").write_text("echo said; exit 3")
        door.own(door.workdir)
        yield door
        for container in docker_client.containers.list(all=True, filters={"label": "biom3d.job"}, ignore_removed=True):
            if container.labels.get("biom3d.job") in (JOB, OTHER):
                container.remove(force=True)


def body(door: Door, image: str, job: str = JOB) -> dict:
    """Return what the client sends to create a job's container."""
    mounts = [{"Target": "/job", "Source": str(door.root / "jobs" / job), "Type": "bind", "ReadOnly": False}]
    return {
        "Hostname": None,
        "User": door.uid_gid,
        "Tty": False,
        "AttachStdout": True,
        "Env": ["BIOM3D_CONTAINER=1", "BIOM3D_LEASES="],
        "Image": image,
        "Entrypoint": ["bash", "/job/run.sh", 'biom3d.job={"biom3d.job": "x"}'],
        "WorkingDir": "/job",
        "Labels": {"biom3d.job": job, "biom3d.job.name": "n", "biom3d.job.threads": "1"},
        "HostConfig": {
            "Memory": 2**26,
            "MemorySwap": 2**26,
            "ShmSize": 2**26,
            "ReadonlyRootfs": True,
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "64m", "max-file": "2"}},
            "Tmpfs": {"/tmp": ""},
            "Init": True,
            "NanoCpus": 10**9,
            "Mounts": mounts,
        },
    }


def create(door: Door, content: dict, name: str = f"biom3d-{JOB}") -> "tuple[int, dict]":
    return door.ask("POST", f"/v1.41/containers/create?name={name}", content)


def test_a_job_is_made_run_followed_and_removed(door, base_image):
    assert create(door, body(door, base_image))[0] == 201
    one = f"/v1.41/containers/biom3d-{JOB}"
    answers = door.http(
        request("POST", f"{one}/start"),
        request("POST", f"{one}/wait"),
        request("GET", f"{one}/logs?stdout=1&stderr=1&follow=1&timestamps=0"),
        request("GET", f"{one}/json"),
        request("DELETE", f"{one}?v=False&link=False&force=True"),
    )
    assert [status for status, _ in answers] == [204, 200, 200, 200, 204]
    assert answers[1][1]["StatusCode"] == 3
    assert answers[2][1]["text"].endswith("said\n")
    assert answers[3][1]["Config"]["Labels"]["biom3d.gate"] == "anna"


def test_what_a_job_took_is_noted(door, base_image):
    test_a_job_is_made_run_followed_and_removed(door, base_image)
    made, started, job = [note for note in door.notes() if note["what"] != "dial_engine"]
    assert (made["what"], started["what"]) == ("create", "start")
    assert (job["what"], job["job"], job["exit"], job["gpus"]) == ("job", JOB, 3, [])
    assert 0 <= job["seconds"] < 60
    assert job["image"].startswith("sha256:")


# What is changed in the description of an honest job's container -> what must not come of it.
ATTACKS = {
    "privileged": {"HostConfig": {"Privileged": True}},
    "privileged, in other letters": {"HostConfig": {"privileged": True}},
    "host network": {"HostConfig": {"NetworkMode": "host"}},
    "default network": {"HostConfig": {"NetworkMode": ""}},
    "network of a container": {"HostConfig": {"NetworkMode": "container:x"}},
    "networking config": {"NetworkingConfig": {"EndpointsConfig": {"bridge": {}}}},
    "host processes": {"HostConfig": {"PidMode": "host"}},
    "host ipc": {"HostConfig": {"IpcMode": "host"}},
    "host uts": {"HostConfig": {"UTSMode": "host"}},
    "host users": {"HostConfig": {"UsernsMode": "host"}},
    "host cgroups": {"HostConfig": {"CgroupnsMode": "host"}},
    "cgroup parent": {"HostConfig": {"CgroupParent": "/"}},
    "capability": {"HostConfig": {"CapAdd": ["SYS_ADMIN"]}},
    "capabilities not dropped": {"HostConfig": {"CapDrop": []}},
    "seccomp off": {"HostConfig": {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]}},
    "new privileges": {"HostConfig": {"SecurityOpt": []}},
    "device": {"HostConfig": {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda"}]}},
    "device rule": {"HostConfig": {"DeviceCgroupRules": ["a *:* rwm"]}},
    "gpu": {"HostConfig": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}},
    "gpu by number": {"HostConfig": {"DeviceRequests": [{"DeviceIDs": ["0"], "Capabilities": [["gpu"]]}]}},
    "gpu by a variable": {"Env": ["NVIDIA_VISIBLE_DEVICES=all"]},
    "root of the host, as text": {"HostConfig": {"Binds": ["/:/x"]}},
    "volume": {"HostConfig": {"Mounts": [{"Type": "volume", "Source": "x", "Target": "/x"}]}},
    "volumes of another": {"HostConfig": {"VolumesFrom": ["x"]}},
    "volume driver": {"HostConfig": {"VolumeDriver": "local"}},
    "anonymous volume": {"Volumes": {"/x": {}}},
    "runtime": {"HostConfig": {"Runtime": "nvidia"}},
    "system settings": {"HostConfig": {"Sysctls": {"kernel.shm_rmid_forced": "1"}}},
    "restart": {"HostConfig": {"RestartPolicy": {"Name": "always"}}},
    "log elsewhere": {"HostConfig": {"LogConfig": {"Type": "syslog", "Config": {}}}},
    "log to an address": {"HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"syslog-address": "x"}}}},
    "open ports": {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}},
    "oom priority": {"HostConfig": {"OomScoreAdj": -1000}},
    "tmpfs with devices": {"HostConfig": {"Tmpfs": {"/tmp": "dev,exec"}}},
    "root": {"User": "0:0"},
    "user of the image": {"User": ""},
    "group docker": {"HostConfig": {"GroupAdd": ["docker"]}},
    "entry point": {"Entrypoint": ["sh"]},
    "command": {"Cmd": ["sh"]},
    "label of somebody else": {"Labels": {"biom3d.gate": "bob"}},
    "label of another job": {"Labels": {"biom3d.job": "c3" * 12}},
    "health check": {"Healthcheck": {"Test": ["CMD", "sh"]}},
}


def merged(base: dict, change: dict) -> dict:
    """Return `base` with a change, deep."""
    made = copy.deepcopy(base)
    for key, value in change.items():
        made[key] = merged(made[key], value) if isinstance(value, dict) and isinstance(made.get(key), dict) else value
    return made


@pytest.fixture(scope="module")
def refused(server, account, docker_client, base_image):
    """What comes of all attacks, sent on one channel by one person: attack -> status, message."""
    with opened(server, account, "carl") as door:
        door.join_engine()
        door.configure(images=[base_image])
        (door.root / "jobs" / OTHER).mkdir()
        door.own(door.workdir)
        path = f"/v1.41/containers/create?name=biom3d-{OTHER}"
        bodies = [merged(body(door, base_image, OTHER), change) for change in ATTACKS.values()]
        answers = door.http(*(request("POST", path, content) for content in bodies))
        yield dict(zip(ATTACKS, answers, strict=True))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_container_with_more_rights_is_refused(refused, attack):
    status, answer = refused[attack]
    assert (status, answer["message"][:13]) == (403, "biom3d-gate: ")


def test_lists_that_are_empty_are_left_out_as_they_may_mean_everything(door, base_image, docker_client):
    content = merged(body(door, base_image), {"HostConfig": {"MaskedPaths": [], "ReadonlyPaths": []}})
    assert create(door, content)[0] == 201
    assert "/proc/kcore" in docker_client.containers.get(f"biom3d-{JOB}").attrs["HostConfig"]["MaskedPaths"]


SOURCES = ["/", "/etc", "/var/run/docker.sock", "{home}", "{home}/.ssh", "{work}/..", "{root}/tmp", "{root}/store"]
SOURCES += [
    "{root}/jobs",
    "{root}",
    "{root}/jobs/" + OTHER,
    "{root}/jobs/../../..",
    "{root}/jobs/{job}/link",
    "relative",
    "",
]


@pytest.mark.parametrize("source", SOURCES)
def test_folders_of_others_are_not_mounted(door, base_image, source):
    (door.root / "jobs" / JOB / "link").symlink_to("/etc")
    text = source.format(home=door.account.home, work=door.workdir, root=door.root, job=JOB)
    content = body(door, base_image)
    content["HostConfig"]["Mounts"].append({"Type": "bind", "Source": text, "Target": "/x", "ReadOnly": True})
    assert create(door, content)[0] == 403


@pytest.mark.parametrize("source", ["{work}/data", "{work}", "{root}/jobs/" + OTHER, "{root}/store"])
def test_only_the_jobs_own_folder_is_written_to(door, base_image, source):
    door.make_file("data/a")
    text = source.format(work=door.workdir, root=door.root)
    content = body(door, base_image)
    content["HostConfig"]["Mounts"].append({"Type": "bind", "Source": text, "Target": "/x", "ReadOnly": False})
    assert create(door, content)[0] == 403


def test_data_sets_and_shared_folders_are_mounted_to_be_read(door, base_image):
    door.make_file("data/a")
    content = body(door, base_image)
    for target, source in (("/x", door.workdir / "data"), ("/y", door.folder.parent / "shared")):
        content["HostConfig"]["Mounts"].append(
            {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}
        )
    assert create(door, content)[0] == 201


def test_a_folder_that_becomes_a_link_before_the_start_stops_it(door, base_image):
    inputs = door.make_file(f".biom3d/jobs/{JOB}/abs/data/a").parent
    content = body(door, base_image)
    content["HostConfig"]["Mounts"].append({"Type": "bind", "Source": str(inputs), "Target": "/data", "ReadOnly": True})
    assert create(door, content)[0] == 201
    shutil.rmtree(inputs)
    inputs.symlink_to("/etc")
    assert door.ask("POST", f"/v1.41/containers/biom3d-{JOB}/start")[0] == 403


def test_what_a_job_may_still_write_to_becomes_no_data_set(door, base_image):
    work = door.make_file(f".biom3d/jobs/{JOB}/work/images/a").parents[1]
    assert create(door, body(door, base_image))[0] == 201
    done = door.run("place_dataset", work, door.workdir / "data/x")
    assert (done.returncode, b"has a container yet" in done.stderr) == (77, True)
    assert door.ask("DELETE", f"/v1.41/containers/biom3d-{JOB}?force=True")[0] == 204
    assert door.run("place_dataset", work, door.workdir / "data/x").returncode == 0
    assert (door.workdir / "data/x/images/a").exists()


def test_an_image_that_is_not_listed_is_refused(door, base_image):
    door.configure(images=["sha256:" + "0" * 64])
    status, answer = create(door, body(door, base_image))
    assert (status, "is not one of those allowed" in answer["message"]) == (403, True)


def test_gpus_are_given_as_the_configuration_says(door, base_image):
    gate = load(door, gpus=[0, 1])
    wanted = {"Driver": "", "Count": 0, "DeviceIDs": ["1"], "Capabilities": [["gpu"]], "Options": {}}
    assert gate.check_gpus(wanted) == {"DeviceIDs": ["1"], "Capabilities": [["gpu"]]}
    for device in ("2", "all", "0,2", "-1", 0, "٣"):
        with pytest.raises(Exception, match="GPU"):
            gate.check_gpus(wanted | {"DeviceIDs": [device]})


def load(door: Door, **settings: object):
    """Return the filter of a person with these settings, in this process."""
    door.configure(**settings)
    module = load_gate()
    return module.EngineFilter(module.Gate("anna", str(door.workdir), str(door.config)), None, None)


def test_another_persons_containers_are_out_of_reach(door, server, account, base_image):
    other = Door(server, account, door.folder.parent / "other", "bob")
    other.configure(images=[base_image])
    assert create(door, body(door, base_image))[0] == 201
    one = f"/v1.41/containers/biom3d-{JOB}"
    tries = [("POST", "/start"), ("POST", "/stop"), ("POST", "/kill"), ("POST", "/wait"), ("DELETE", "")]
    tries += [("GET", "/logs?stdout=1")]
    try:
        for method, rest in tries:
            assert other.ask(method, one + rest)[0] == 403, rest
        found = other.ask("GET", f"{one}/json")[1]
        labels = {**body(door, "")["Labels"], "biom3d.job.owner": "anna", "biom3d.job.access": "others"}
        assert found["Config"] == {"Labels": labels, "User": door.uid_gid}
        assert "HostConfig" not in found
    finally:
        other.remove()


def test_containers_that_are_no_jobs_are_not_there(door, docker_client, base_image):
    container = docker_client.containers.create(base_image, "true", name=f"g-not-a-job-{JOB}")
    try:
        assert door.ask("GET", f"/v1.41/containers/g-not-a-job-{JOB}/json")[0] == 404
        assert door.ask("DELETE", f"/v1.41/containers/{container.id}")[0] == 403
        listed = door.ask("GET", "/v1.41/containers/json?all=1")[1]
        assert container.id not in [one["Id"] for one in listed]
    finally:
        container.remove()


REQUESTS = [
    ("POST", "/v1.41/containers/x/exec"),
    ("POST", "/v1.41/exec/x/start"),
    ("POST", "/v1.41/containers/x/attach?stream=1"),
    ("GET", "/v1.41/containers/x/attach/ws"),
    ("PUT", "/v1.41/containers/x/archive?path=/"),
    ("GET", "/v1.41/containers/x/archive?path=/"),
    ("GET", "/v1.41/containers/x/export"),
    ("POST", "/v1.41/containers/x/update"),
    ("POST", "/v1.41/containers/x/rename?name=y"),
    ("POST", "/v1.41/containers/prune"),
    ("POST", "/v1.41/commit?container=x"),
    ("POST", "/v1.41/build"),
    ("POST", "/v1.41/images/create?fromImage=x"),
    ("POST", "/v1.41/images/load"),
    ("POST", "/v1.41/images/x/tag?repo=y"),
    ("DELETE", "/v1.41/images/x"),
    ("GET", "/v1.41/images/json"),
    ("GET", "/v1.41/images/x/get"),
    ("POST", "/v1.41/volumes/create"),
    ("POST", "/v1.41/networks/create"),
    ("GET", "/v1.41/secrets"),
    ("POST", "/v1.41/swarm/init"),
    ("POST", "/v1.41/plugins/pull"),
    ("GET", "/v1.41/events"),
    ("POST", "/session"),
    ("POST", "/v1.41/containers/create?name=x&platform=y"),
    ("POST", "/v1.41/containers/create?name=biom3d-" + JOB + "&name=x"),
    ("POST", "/v1.41/containers/create"),
    ("GET", "/v1.41/containers/../info"),
    ("GET", "/v1.41//info"),
    ("GET", "//info"),
    ("GET", "/v1.41/containers/%2e%2e/json"),
    ("GET", "/v1.41/images/../containers/x/export?/json"),
    ("GET", "/v1.41/images/x%2f..%2f..%2fcontainers/json"),
    ("GET", "/v1.41/v1.41/info"),
    ("GET", "/libpod/info"),
    ("get", "/info"),
    ("GET", "/info/"),
    ("GET", "/info?x=1"),
    ("GET", "http://x/info"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
def test_other_requests_are_refused(door, method, path):
    answers = door.http(request(method, path))
    assert not answers or answers[0][0] in (403, 404)
    assert [note["verdict"] for note in door.notes()] == ["refused"]


RAW = [
    b"POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /info HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    b"GET /info HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
    b"GET /info HTTP/1.1\r\nContent-Length: +0\r\n\r\n",
    b"GET /info HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
    b"GET /info HTTP/1.0\r\n\r\n",
    b"GET /info HTTP/1.1\n\n",
    b"GET /info HTTP/1.1\r\n folded: x\r\n\r\n",
    b"GET /info HTTP/1.1\r\nA: x\n",
    b"GET /info\r\n\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01" + bytes(100),
    b"GET /info HTTP/1.1\r\n" + b"".join(b"A%d: x\r\n" % n for n in range(60)) + b"\r\n",
]


@pytest.mark.parametrize("raw", RAW)
def test_what_is_no_plain_http_ends_the_connection(door, raw):
    assert door.http(raw, request("GET", "/info")) == []
    assert [note["verdict"] for note in door.notes()] == ["refused"]


def test_a_second_request_hidden_in_a_body_is_not_one(door):
    hidden = request("POST", "/v1.41/containers/create", {})
    answers = door.http(request("GET", "/_ping")[:-4] + b"\r\nX: y\r\n\r\n", request("GET", "/_ping", hidden.decode()))
    assert [status for status, _ in answers] == [200, 200]


def test_without_a_socket_in_the_configuration_there_is_no_engine(door):
    door.configure(engine_socket="")
    assert door.ssh(unchecked(BY_NAME["dial_engine"], SOCKET)).returncode == 77
    assert door.ssh(unchecked(BY_NAME["dial_engine"], "")).returncode == 77


def test_a_follower_that_goes_away_leaves_no_process(door, base_image):
    (door.root / "jobs" / JOB / "run.sh").write_text("sleep 100")
    assert create(door, body(door, base_image))[0] == 201
    one = f"/v1.41/containers/biom3d-{JOB}"
    assert door.ask("POST", f"{one}/start")[0] == 204
    words = [*door.client("ssh"), door.target, unchecked(BY_NAME["dial_engine"], "")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as following:
        following.stdin.write(request("GET", f"{one}/logs?stdout=1&follow=1"))
        following.stdin.flush()
        assert following.stdout.readline().startswith(b"HTTP/1.1 200")
        following.kill()
    wait_for(lambda: not gates(door), "the end of the gate")


def gates(door: Door) -> list[str]:
    """Return the processes of the gate that belong to the account."""
    lines = subprocess.run(["ps", "-o", "args=", "-u", door.account.name], capture_output=True, text=True).stdout
    return [line for line in lines.splitlines() if str(door.gate) in line]


def test_the_list_of_containers_can_be_asked_with_any_filter(door, base_image):
    assert create(door, body(door, base_image))[0] == 201
    for filters in ({"label": ["biom3d.job.name=n"]}, {"label": {"biom3d.job": True}}, {"name": ["x"]}, {}):
        status, listed = door.ask("GET", f"/v1.41/containers/json?all=1&filters={quoted(filters)}")
        assert (status, JOB in [one["Labels"]["biom3d.job"] for one in listed]) == (200, True), filters
    assert door.ask("GET", "/v1.41/containers/json?filters=[]")[0] == 403


def quoted(value: object) -> str:
    return quote(json.dumps(value))
