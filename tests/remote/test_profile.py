import dataclasses
import io
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser

from biom3d.errors import ConfigError
from biom3d.remote import __main__ as remote
from biom3d.remote.profile import (
    OWN,
    Settings,
    list_profiles,
    open_host,
    open_runtime,
    profiles_folder,
    read_profile,
    render_profile,
    renew_profile,
    ssh_settings,
    write_profile,
)
from tests.remote.test_run import with_engine

__all__ = ["with_engine"]
ROOT = Path(__file__).parents[2]
HOST = Settings(address="gpu1.example.org")
ALL = Settings(
    "server",
    2222,
    "lab",
    "/a key",
    "u@gate:23,other",
    "/c: #",
    "b 'm",
    2,
    1.5,
    True,
    "i:1",
    "0",
    "/run/s",
    "docker",
    "/e",
    "all",
)  # each one set


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "conf"))
    monkeypatch.chdir(tmp_path)


def keys(text: str) -> set[str]:
    return set(yaml.safe_load(text))


def test_the_settings_are_those_of_the_plugin():
    from snakemake_executor_plugin_host import ExecutorSettings

    theirs = [field.name for field in dataclasses.fields(ExecutorSettings)]
    assert [field.name for field in dataclasses.fields(Settings)] == theirs == list(OWN)


def test_all_else_is_as_in_the_profile_docker():
    ours = yaml.safe_load(render_profile("x", Settings()))
    assert ours == yaml.safe_load((ROOT / "profiles/docker/profile.yaml").read_text())


def test_every_key_has_a_reason():
    lines = [line for line in render_profile("x", ALL).splitlines() if line and line[0] != "#"]
    assert [line for line in lines if "  # " not in line] == []


def test_a_key_that_is_not_set_becomes_valid_when_its_comment_sign_goes():
    text = render_profile("x", HOST).replace("\n# host-", "\nhost-")
    assert {f"host-{name.replace('_', '-')}" for name in OWN} <= keys(text)


def test_what_was_written_is_read_again(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "profile.yaml").write_text(render_profile("x", ALL))
    assert read_profile(str(folder)) == ALL


def test_a_number_where_a_word_is_wanted_is_read_as_snakemake_does(tmp_path):
    (tmp_path / "p.yaml").write_text("executor: host\nhost-gpus: 0\n")
    assert read_profile("p.yaml").gpus == "0"


def test_snakemake_finds_the_profile_where_we_write_it(monkeypatch):
    import snakemake.common

    monkeypatch.setattr(snakemake.common, "APPDIRS", None)
    assert str(profiles_folder()) == snakemake.common.get_appdirs().user_config_dir


def test_snakemake_reads_every_key_from_any_folder(tmp_path):
    (profiles_folder() / "all").mkdir(parents=True)
    (profiles_folder() / "all/profile.yaml").write_text(render_profile("all", ALL))
    code = (
        "import sys; from snakemake.cli import parse_args\n"
        "from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry as R\n"
        "_, args = parse_args(['--profile', 'all'])\n"
        "s = R().get_plugin('host').get_settings(args)\nprint(args.executor, vars(s))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"host {dataclasses.asdict(ALL)}"


def test_snakemake_runs_a_workflow_with_the_profile(tmp_path):
    write_profile("here", Settings())
    (tmp_path / "w").mkdir()
    (tmp_path / "w/Snakefile").write_text(
        "rule all:\n  output: 'a'\n  container: 'docker://x'\n  shell: 'touch {output}'\n"
    )
    line = [sys.executable, "-m", "snakemake", "--profile", "here", "--dry-run"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path / "w")
    assert done.returncode == 0, done.stderr


def test_another_profile_is_not_overwritten():
    path = write_profile("gpu", HOST)
    with pytest.raises(ConfigError, match="--replace"):
        write_profile("gpu", Settings())
    assert "gpu1.example.org" in path.read_text()


def test_a_profile_is_replaced_on_demand():
    write_profile("gpu", HOST)
    write_profile("gpu", Settings(), is_replaced=True)
    assert read_profile("gpu") == Settings()


def test_a_file_that_snakemake_would_prefer_is_not_left_beside():
    folder = write_profile("gpu", HOST).parent
    (folder / "profile.v9+.yaml").touch()
    with pytest.raises(ConfigError, match=r"v9\+"):
        write_profile("gpu", HOST, is_replaced=True)


@pytest.mark.parametrize("name", ["", "-x", "../x", "a/b", "a b", "x\n"])
def test_a_name_that_is_a_path_or_an_option_is_refused(name):
    with pytest.raises(ConfigError, match="no name"):
        write_profile(name, HOST)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings("h", user="lab:secret"), "no password"),
        (Settings("h", jump="lab:secret@gate"), "no password"),
        (Settings("lab:secret@h"), "--user"),
        (Settings("h", port=70000), "65535"),
        (Settings("h", parallel=0), "1 to 8"),
        (Settings("h", bandwidth_mb_s=0.0), "more than 0"),
        (Settings("h", key_file="none"), "no key file"),
        (Settings("h", jump="a b"), "not understood"),
        (Settings("local", user="lab"), "means nothing"),
        (Settings("-oProxyCommand=x"), "no name of a host"),
        (Settings("h", runtime="conda"), "wanted docker, podman or venv"),
        (Settings("h", keep="some"), "wanted none, failed or all"),
        (Settings("h", venv="env"), "runtime: venv only"),
        (Settings("h", runtime="venv", engine_socket="/s"), "no container engine"),
    ],
)
def test_what_cannot_be_right_is_not_written(settings, words):
    with pytest.raises(ConfigError, match=words):
        write_profile("x", settings)
    assert not (profiles_folder() / "x").exists()


def test_paths_mean_the_same_in_every_folder(tmp_path):
    (tmp_path / "key").touch()
    write_profile("x", Settings("h", key_file="key"))
    assert read_profile("x").key_file == str(tmp_path / "key")


def test_a_setting_reaches_the_connection():
    ssh = ssh_settings(Settings("h", port=23, workdir="w", jump="u@g", engine_socket="/s", check_store=True))
    assert (ssh.port, ssh.workdir, ssh.jump[0].host, ssh.engine_socket, ssh.check_store) == (23, "w", "g", "/s", True)


def test_a_host_of_its_own_kind_is_opened(tmp_path):
    kinds = [type(open_host(settings, tmp_path)).__name__ for settings in (Settings(), HOST)]
    assert kinds == ["LocalHost", "SSHHost"]


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        (Settings(), ("LocalHost", "Containers")),
        (Settings(runtime="docker"), ("LocalHost", "Containers")),
        (Settings(runtime="podman"), ("LocalPodman", "Containers")),
        (Settings("h", runtime="podman"), ("SSHPodman", "Containers")),
        (Settings("h", runtime="venv"), ("SSHHost", "Venv")),
    ],
)
def test_a_runtime_of_its_own_kind_is_opened(tmp_path, settings, kinds):
    host = open_host(settings, tmp_path)
    assert (type(host).__name__, type(open_runtime(settings, host)).__name__) == kinds


def test_the_plugins_own_profile_can_be_named_by_its_path():
    assert read_profile(str(ROOT / "profiles/docker")) == Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("executor: slurm\n", "slurm"),
        ("executor: host\nhost-adress: a\n", "did you mean 'address'"),
        ("executor: host\nhost-port: high\n", "port"),
        ("- a\n", "wanted a mapping"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(tmp_path, text, words):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_profile("p.yaml")


def test_an_unknown_profile_is_answered_with_the_known_ones():
    write_profile("gpu", HOST)
    with pytest.raises(ConfigError, match="there: gpu"):
        read_profile("gpx")


def test_profiles_of_other_executors_are_not_listed():
    write_profile("gpu", HOST)
    (profiles_folder() / "cluster").mkdir()
    (profiles_folder() / "cluster/config.yaml").write_text("executor: slurm\n")
    assert [name for name, _, _ in list_profiles()] == ["gpu"]


def test_the_command_adds_and_lists(capsys):
    words = ["--host", "gpu1.example.org", "--user", "lab", "--gpus", "0,1"]
    assert remote.main(["add", "gpu", *words]) == 0
    assert remote.main(["list"]) == 0
    assert read_profile("gpu") == Settings("gpu1.example.org", user="lab", gpus="0,1")
    assert "gpu   gpu1.example.org  lab" in capsys.readouterr().out


def test_a_mistake_is_told_without_a_traceback(capsys):
    assert remote.main(["add", "gpu", "--host", "h", "--port", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_of_the_same_name_is_warned_about(tmp_path, capsys):
    (tmp_path / "gpu").mkdir()
    remote.main(["add", "gpu", "--host", "h"])
    assert "which Snakemake would take" in capsys.readouterr().err


def test_a_folder_of_the_same_name_does_not_hide_the_profile_from_the_verbs(tmp_path):
    (tmp_path / "gpu").mkdir()
    write_profile("gpu", HOST)
    assert read_profile("gpu") == HOST


def test_a_path_of_the_host_is_no_path_here_to_snakemake():
    """As nobody, who may not look into /root: every rented machine with a GPU has its working folder there."""
    path = write_profile("gpu", Settings("h", user="root", workdir="/root/biom3d"))
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, open(path) as stream:
        Path(folder).chmod(0o755)
        profile = io.StringIO(stream.read())
        profile.name = f"{folder}/profile.yaml"
        ProfileConfigFileParser().parse(profile)  # loads what it needs
        profile.seek(0)
        child = os.fork()
        if not child:
            os.setuid(65534)
            try:
                found = ProfileConfigFileParser().parse(profile)
                os._exit(0 if found["host-workdir"] == "there:/root/biom3d" else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_profile("gpu").workdir == ssh_settings(Settings("h", workdir="there:/root/biom3d")).workdir
    assert read_profile("gpu").workdir == "/root/biom3d"


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("gpu1:2222", "--host gpu1 --port 2222"),
        ("[::1]:2222", "--host ::1 --port 2222"),
        ("[::1]", "--host ::1 --port"),
    ],
)
def test_a_port_in_the_name_of_the_host_is_told_where_it_goes(host, wanted):
    with pytest.raises(ConfigError, match=f"give: {wanted}"):
        write_profile("gpu", Settings(host))


@pytest.mark.parametrize("path", ["/scratch/$USER/b3d", "${HOME}/b3d"])
def test_a_variable_of_this_computer_in_a_path_of_the_host_is_refused(path):
    with pytest.raises(ConfigError, match="variables are those of this computer"):
        write_profile("gpu", Settings("h", workdir=path))
    write_profile("gpu", Settings("h", workdir="lab"))
    file = profiles_folder() / "gpu/profile.yaml"
    file.write_text(file.read_text().replace("host-workdir: lab", f"host-workdir: {path}"))
    with pytest.raises(ConfigError, match="variables are those of this computer"):
        read_profile("gpu")


def test_the_home_folder_of_the_host_is_not_that_of_this_computer():
    write_profile("gpu", Settings("h", workdir="~/lab"))
    file = profiles_folder() / "gpu/profile.yaml"
    assert read_profile("gpu").workdir == "~/lab"
    file.write_text(file.read_text().replace('"there:~/lab"', "~/lab"))
    with pytest.raises(ConfigError, match="'~' is your home folder on this computer"):
        read_profile("gpu")


@pytest.mark.system
def test_after_add_snakemake_runs_jobs_on_the_host_from_any_folder(client, with_engine, base_image, tmp_path):
    words = ["--host", "server", "--key-file", str(client.folder / "key"), "--config", str(client.config)]
    assert remote.main(["add", "gpu", *words, "--workdir", "lab"]) == 0
    folder = tmp_path / "project"
    folder.mkdir()
    rule = f"rule one:\n  output: 'who'\n  container: 'docker://{base_image}'\n  shell: 'id -u >{{output}}'\n"
    (folder / "Snakefile").write_text(rule)
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", "gpu"], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "who").read_text().strip() == str(pwd.getpwnam(client.account.name).pw_uid)


OLD_PROFILE = """\
# mine
executor: ssh  # our plugin
jobs: 7
ssh-host: gpu1  # where jobs run
# ssh-port: 22  # of the SSH server
ssh-key-file: /keys/a
default-resources: ["mem_mb=100"]
"""


def test_a_profile_of_an_older_version_is_told_and_renewed():
    file = profiles_folder() / "old" / "profile.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(OLD_PROFILE)
    with pytest.raises(ConfigError, match="renew it with: biom3d remote renew old"):
        read_profile("old")
    assert remote.main(["renew", "old"]) == 0
    assert read_profile("old") == Settings("gpu1", key_file="/keys/a")
    expected = OLD_PROFILE.replace("executor: ssh", "executor: host").replace("ssh-host", "host-address")
    assert file.read_text() == expected.replace("ssh-", "host-")
    with pytest.raises(ConfigError, match="needs no renewal"):
        renew_profile("old")
