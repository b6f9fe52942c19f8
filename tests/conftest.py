"""Fixtures for all tests; each is made only when a test asks for it."""

import signal

import docker
import pytest
from hypothesis import settings

from biom3d.events import Reporter
from biom3d.images.base import ensure_base
from biom3d.images.plan import plan_base
from biom3d.images.table import load_table
from tests.docker_engine import cpu_image, docker_client, upstream_image

pytest_plugins = ["tests.rootless", "tests.leftovers"]
# A shell's background job ignores Ctrl-C, and so would all programs that the tests start from it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No property is about time, and a busy machine makes any example slow.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

__all__ = ["cpu_image", "docker_client", "upstream_image"]


@pytest.fixture(scope="session")
def base_image(docker_client: docker.DockerClient) -> str:
    """A small image with a shell and Python: enough for jobs that are not about images."""
    table = load_table()
    ensure_base(docker_client, table, "bookworm", Reporter("images"))
    return plan_base(table, "bookworm").reference
