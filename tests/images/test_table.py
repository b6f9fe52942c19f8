import pytest

from biom3d.errors import ConfigError
from biom3d.images.table import load_table
from tests.images.conftest import change


def test_the_table_has_the_promised_variants(table):
    assert {"cpu", "cuda", "cuda-legacy", "upstream-0.1.2", "upstream-0.0.46"} <= set(table.images)


def test_an_unknown_variant_is_named_with_the_nearest_one(table):
    with pytest.raises(ConfigError, match=r"unknown image variant 'cpuu'; did you mean 'cpu'\?"):
        table.variant("cpuu")


def test_our_images_have_the_version_of_pyproject(table):
    assert table.version_of("cpu") == "0.1.0"
    assert table.version_of("upstream-0.1.2") == "0.1.2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("torch: 2.13.0+cpu", "torch: latest", "images: cpu: torch: 'latest' does not match"),
        ("driver: \"580\"", "memory: 3", "images: cuda: Additional properties are not allowed"),
        ("    base: bookworm", "    base: bokworm", "did you mean 'bookworm'"),
        ("packages: [workflow]", "packages: [nope]", "cpu: packages: unknown name 'nope'"),
        ("    mmdebstrap:\n", "    reference: debian:latest\n    mmdebstrap:\n", "bases: bookworm"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_its_place(checkout, old, new, message):
    change(checkout / "containers/images.yaml", old, new)
    with pytest.raises(ConfigError, match=message):
        load_table(checkout)


def test_an_installation_without_a_checkout_says_where_images_are_built(tmp_path):
    with pytest.raises(ConfigError, match="images are built in a checkout"):
        load_table(tmp_path)


def test_a_base_from_a_registry_needs_a_digest(checkout):
    change(checkout / "containers/images.yaml", "    mmdebstrap:\n", "    reference: debian:bookworm\n    ignored:\n")
    with pytest.raises(ConfigError, match="bases: bookworm"):
        load_table(checkout)
