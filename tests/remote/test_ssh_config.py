"""From what the user says and ~/.ssh/config to the way to the host."""

from pathlib import Path

import pytest

from biom3d.errors import ConfigError
from biom3d.remote.ssh_config import Hop, SSHSettings, parse_hop, parse_jump, plan_route


@pytest.fixture
def route(tmp_path):
    """Writes a configuration and returns the route to host `gpu`."""

    def plan(config: str, **values):
        path = tmp_path / "config"
        path.write_text(config)
        return plan_route(SSHSettings("gpu", config=path, **values))

    return plan


def ways(route):
    return [(station.user, station.host, station.port) for station in route]


def test_the_configuration_of_ssh_says_where_a_host_is(route):
    config = "Host gpu\n HostName gpu1.example.org\n Port 2200\n User lab\n"
    assert ways(route(config)) == [("lab", "gpu1.example.org", 2200)]


def test_what_the_user_says_goes_before_the_configuration(route):
    config = "Host gpu\n HostName gpu1.example.org\n Port 2200\n User lab\n"
    assert ways(route(config, user="me", port=23)) == [("me", "gpu1.example.org", 23)]


def test_proxyjump_is_followed_and_each_hop_looked_up(route):
    config = "Host gpu\n User a\n ProxyJump door,b@inner:99\nHost door\n HostName door.example.org\n User c\n Port 24\n"
    assert ways(route(config)) == [("c", "door.example.org", 24), ("b", "inner", 99), ("a", "gpu", 22)]


def test_the_first_hop_may_have_a_way_of_its_own(route):
    config = "Host gpu\n User a\n ProxyJump inner\nHost inner\n User b\n ProxyJump door\nHost door\n User c\n"
    assert [station.name for station in route(config)] == ["door", "inner", "gpu"]


def test_hops_that_lead_in_a_circle_are_refused(route):
    with pytest.raises(ConfigError, match="loop"):
        route("Host a\n ProxyJump b\nHost b\n ProxyJump a\n", jump=(Hop("a"),))


def test_jump_hosts_of_the_user_replace_those_of_the_configuration(route):
    config = "Host gpu\n User a\n ProxyJump door\n"
    assert [station.name for station in route(config, jump=())] == ["gpu"]
    assert [station.name for station in route(config, jump=(Hop("other"),))] == ["other", "gpu"]


def test_included_files_are_read(route, tmp_path):
    (tmp_path / "more").write_text("Host gpu\n Port 77\n User x\n")
    assert route(f"Include {tmp_path / 'more'}\n")[0].port == 77


def test_known_hosts_go_under_alias_or_address_and_port(route):
    assert route("Host gpu\n HostName h\n Port 99\n")[0].key_name == "[h]:99"
    assert route("Host gpu\n HostName h\n")[0].key_name == "h"
    assert route("Host gpu\n HostKeyAlias other\n Port 99\n")[0].key_name == "other"


def test_a_proxy_command_gets_host_and_port(route):
    assert route("Host gpu\n HostName h\n ProxyCommand nc %h %p 100%%\n")[0].proxy_command == "nc h 22 100%"


def test_a_key_that_is_not_there_is_refused(route, tmp_path):
    with pytest.raises(ConfigError, match="no key file"):
        route("", key_file=tmp_path / "none")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "", " "])
def test_a_name_that_ssh_would_take_for_an_option_is_refused(host, tmp_path):
    with pytest.raises(ConfigError, match="no name of a host"):
        plan_route(SSHSettings(host, config=tmp_path / "none"))


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("door", Hop("door")),
        ("me@door:2222", Hop("door", 2222, "me")),
        ("ssh://me@door:2222/", Hop("door", 2222, "me")),
        ("me@[fe80::1]:22", Hop("fe80::1", 22, "me")),
        ("me@example.org@door", Hop("door", None, "me@example.org")),
    ],
)
def test_a_hop_is_read(text, hop):
    assert parse_hop(text) == hop


@pytest.mark.parametrize("text", ["", "@door", "door:port", "-x", "a b"])
def test_a_hop_that_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match="jump host"):
        parse_hop(text)


def test_none_means_directly():
    assert parse_jump("none") == ()


def test_without_an_ssh_client_the_file_is_read_all_the_same(route, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    config = "Host gpu\n HostName h\n Port 99\n User u\n ProxyJump door\n"
    assert ways(route(config))[-1] == ("u", "h", 99)


def test_keys_of_the_configuration_are_tried_if_they_exist(route, tmp_path):
    (tmp_path / "id").touch()
    config = f"Host gpu\n IdentityFile {tmp_path / 'id'}\n IdentityFile {tmp_path / 'none'}\n"
    assert route(config)[0].key_files == (Path(tmp_path / "id"),)
