import pytest

from biom3d.errors import ConfigError
from biom3d.images.keys import lookup, package_files, template_parts
from biom3d.images.lock import MACHINE, Lock, base_id, note_base, write_lock
from biom3d.images.table import CHECKOUT, load_table
from tests.images.conftest import change

OURS, UPSTREAM = "cpu", "upstream-0.1.2"


def digests(checkout):
    return {name: lookup(name, checkout).digest for name in (OURS, UPSTREAM)}


def changed(checkout, before):
    return {name for name, digest in digests(checkout).items() if digest != before[name]}


def test_the_name_of_an_image_is_variant_version_and_digest(checkout):
    image = lookup(OURS, checkout)
    assert image.reference == f"biom3d-workflow/cpu:0.1.0-{image.digest[7:19]}"


def test_a_change_in_our_code_changes_our_images_only(checkout):
    before = digests(checkout)
    change(checkout / "biom3d/__init__.py", "stand-in", "step")
    assert changed(checkout, before) == {OURS}


def test_a_change_in_the_adapter_changes_the_upstream_image_only(checkout):
    before = digests(checkout)
    (checkout / "containers/upstream/biom3d_upstream/more.py").write_text("")
    assert changed(checkout, before) == {UPSTREAM}


@pytest.mark.parametrize("name", ["template.dockerfile", "install.sh", "entrypoint.sh"])
def test_a_change_in_the_template_changes_all(checkout, name):
    before = digests(checkout)
    path = checkout / "containers" / name
    path.write_text(path.read_text() + "# more\n")
    assert changed(checkout, before) == {OURS, UPSTREAM}


def test_another_wheel_changes_that_image_only(checkout):
    before = digests(checkout)
    path = checkout / f"containers/locks/{OURS}.txt"
    path.write_text(path.read_text() + "\n")
    assert changed(checkout, before) == {OURS}


def test_another_base_changes_all(checkout):
    before = digests(checkout)
    note_base(load_table(checkout), "bookworm", "sha256:" + "0" * 64)
    assert (checkout / MACHINE).is_file()
    assert changed(checkout, before) == {OURS, UPSTREAM}


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "biom3d/remote/ssh.py",
        "biom3d/images/keys.py",
        "biom3d/engine.py",
        "biom3d/__pycache__/a.pyc",
        "docs/x.md",
    ],
)
def test_what_no_step_runs_changes_nothing(checkout, path):
    before = digests(checkout)
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout / path).write_text("more\n")
    assert changed(checkout, before) == set()


@pytest.mark.parametrize(
    ("old", "new", "images"),
    [("line-length = 120", "line-length = 99", set()), ('"numpy>=2.0"', '"numpy>=2.1"', {OURS})],
)
def test_of_pyproject_only_what_makes_the_wheel_counts(checkout, old, new, images):
    before = digests(checkout)
    change(checkout / "pyproject.toml", old, new)
    assert changed(checkout, before) == images


def test_an_image_of_others_is_run_by_its_digest(checkout):
    digest = "sha256:" + "a" * 64
    change(
        checkout / "containers/images.yaml", "    # Enter the digest", f"    digest: {digest}\n    # Enter the digest"
    )
    image = lookup("official-0.1.1", checkout)
    assert (image.reference.split("@")[1], image.digest) == (digest, digest)


def test_an_image_of_others_without_a_digest_is_not_run(checkout):
    with pytest.raises(ConfigError, match=r"has no digest; enter it in containers/images\.yaml"):
        lookup("official-0.1.1", checkout)


def test_missing_wheel_locks_and_bases_say_what_to_run(checkout):
    write_lock(checkout, Lock({}, {}))
    with pytest.raises(ConfigError, match="biom3d images base bookworm"):
        lookup("cpu", checkout)
    (checkout / "containers/locks/cpu.txt").unlink()
    note_base(load_table(checkout), "bookworm", "sha256:" + "0" * 64)
    with pytest.raises(ConfigError, match="biom3d images resolve cpu"):
        lookup("cpu", checkout)


def test_another_recipe_of_a_base_is_another_base(checkout):
    before = base_id(load_table(checkout), "bookworm")
    change(checkout / "containers/images.yaml", "packages: [python3,", "packages: [python3, nano,")
    assert base_id(load_table(checkout), "bookworm") != before


def test_each_part_of_the_template_is_a_whole_dockerfile():
    first, second = template_parts(CHECKOUT)
    assert [part.count("\nFROM ") for part in (first, second)] == [2, 2]
    assert all("\nARG BASE\n" in part for part in (first, second))


def test_the_image_holds_every_step_but_not_the_client():
    table = load_table()
    files = {str(path) for path in package_files(table.root, table.packages["workflow"])}
    assert {"biom3d/train.py", "biom3d/pred.py", "biom3d/cli.py"} <= files
    client = ("biom3d/remote/", "biom3d/images/", "biom3d/engine.py", "workflow/")
    assert [name for name in files if name.startswith(client)] == ["workflow/Snakefile"]  # an empty file, for the build
    assert "workflow/Snakefile" in table.packages["workflow"].blank
