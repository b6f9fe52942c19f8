"""The image `cpu`, built and run for real."""

import os

import pytest

from biom3d.engine import find_image
from biom3d.events import Reporter
from biom3d.images.build import build_image
from biom3d.images.contents import read_ages, read_contents
from biom3d.images.keys import lookup
from biom3d.images.lock import base_digest, base_id, read_lock
from biom3d.images.record import lock_images
from biom3d.images.table import load_table
from biom3d.images.verify import check_image
from tests.images.conftest import change

pytestmark = pytest.mark.system
REPORT = Reporter("images")


def run(client, image, *command, **options):
    options = {"network_mode": "none", "read_only": True, "user": "1234:77", "remove": True, "stderr": True} | options
    return client.containers.run(image, list(command), **options).decode()


def test_the_image_says_what_its_labels_say(docker_client, cpu_image):
    facts = check_image(docker_client, load_table(), lookup("cpu"))
    assert (facts.torch, facts.cuda, facts.uid) == ("2.13.0+cpu", "", 10001)


def test_it_is_not_much_larger_than_what_it_must_hold(docker_client, cpu_image):
    packages = run(docker_client, cpu_image, "bash", "-c", "du -sb /opt/venv/lib/python3*/site-packages /opt/biom3d")
    table = load_table()
    base = find_image(docker_client, f"{table.name}/base:{base_id(table, 'bookworm')}").attrs["Size"]
    needed = base + sum(int(line.split()[0]) for line in packages.splitlines())
    size = find_image(docker_client, cpu_image).attrs["Size"]
    assert size <= 1.6e9
    assert size <= 1.15 * needed


def test_steps_are_called_by_their_name(docker_client, cpu_image):
    assert "usage: python -m biom3d.train" in run(docker_client, cpu_image, "train", "--help")
    assert run(docker_client, cpu_image, "--version") == "biom3d 0.1.0\n"


def test_a_command_of_the_client_is_refused_in_one_line(docker_client, cpu_image):
    script = "python -m biom3d images list 2>&1 || true"
    output = run(docker_client, cpu_image, "bash", "-c", script)
    assert output == "biom3d: error: 'images' is not in this image, which holds the steps only; run it outside\n"


def test_other_programs_run_as_they_are_for_any_user(docker_client, cpu_image):
    output = run(docker_client, cpu_image, "bash", "-c", "id -u; id -g; command -v flock tee", environment={"HOME": ""})
    assert output.splitlines() == ["1234", "77", "/usr/bin/flock", "/usr/bin/tee"]


def test_signals_reach_the_program_itself(docker_client, cpu_image):
    assert run(docker_client, cpu_image, "python", "-c", "import os; print(os.getpid())") == "1\n"


def test_a_whole_step_writes_only_into_the_mounted_folder(docker_client, cpu_image, tmp_path):
    tmp_path.chmod(0o777)
    mounts = {str(tmp_path): {"bind": "/work", "mode": "rw"}}
    run(docker_client, cpu_image, "synth", "--help", volumes=mounts, working_dir="/work")
    code = "import matplotlib.pyplot, skimage, zarr, nibabel, h5py, cc3d, imagecodecs; open('out', 'w')"
    run(docker_client, cpu_image, "python", "-c", code, volumes=mounts, working_dir="/work", tmpfs={"/tmp": ""})
    assert [(path.name, path.stat().st_uid) for path in tmp_path.iterdir()] == [("out", 1234)]


def test_a_folder_called_biom3d_does_not_stand_in_for_the_package(docker_client, cpu_image, tmp_path):
    (tmp_path / "biom3d").mkdir()
    (tmp_path / "biom3d" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    mounts = {str(tmp_path): {"bind": "/work", "mode": "ro"}}
    assert "usage:" in run(docker_client, cpu_image, "pred", "--help", volumes=mounts, working_dir="/work")


def test_no_package_manager_leftovers_and_no_open_folders(docker_client, cpu_image):
    script = (
        "find /var/lib/apt/lists /var/cache/apt /root/.cache /wheels -type f ! -name lock 2>/dev/null; "
        "ls -d /opt/venv/bin/pip* /opt/venv/lib/*/site-packages/pip 2>/dev/null; "
        "find / -xdev -type d -perm -0002 ! -perm -1000 2>/dev/null; true"
    )
    assert run(docker_client, cpu_image, "bash", "-c", script) == ""


def test_what_is_there_is_not_built_again(docker_client, cpu_image, capsys):
    build_image(docker_client, load_table(), "cpu", Reporter("images"))
    assert capsys.readouterr().err.splitlines()[-1] == f"images: {cpu_image} is there, nothing to do"


def test_two_builds_hold_the_same_files_of_the_same_age(docker_client, cpu_image):
    before = read_contents(docker_client, cpu_image)
    layers = find_image(docker_client, cpu_image).attrs["RootFS"]["Layers"]
    assert build_image(docker_client, load_table(), "cpu", REPORT, again=True).reference == cpu_image
    assert read_contents(docker_client, cpu_image) == before
    assert find_image(docker_client, cpu_image).attrs["RootFS"]["Layers"] == layers


def test_every_file_that_we_add_has_the_age_of_the_table(docker_client, cpu_image):
    ages = read_ages(docker_client, cpu_image)
    ours = {age for name, age in ages.items() if name.startswith("opt/")}
    assert len(ages) > 1000
    assert ours == {load_table().epoch}


def test_an_image_that_is_not_what_the_table_says_gets_no_name(docker_client, cpu_image, checkout):
    """The table asks for another torch than the wheels hold: found by asking the image."""
    from biom3d.errors import ContainerError

    share_cache(checkout)
    change(checkout / "containers/images.yaml", "torch: 2.13.0+cpu", "torch: 2.12.0+cpu")
    with pytest.raises(ContainerError, match=r"torch is '2.13.0\+cpu', the table says '2.12.0\+cpu'"):
        build_image(docker_client, load_table(checkout), "cpu", REPORT)
    tags = {tag for image in docker_client.images.list() for tag in image.tags}
    assert cpu_image in tags
    assert lookup("cpu", checkout).reference not in tags
    assert not [tag for tag in tags if tag.endswith(f"-{os.getpid()}")]  # while it was built


def test_a_label_that_lies_is_found(docker_client, cpu_image):
    from biom3d.errors import ContainerError

    container = docker_client.containers.create(cpu_image, ["true"])
    try:
        container.commit("biom3d-test/lie", "1", changes='LABEL biom3d.torch="9.9.9"')
        with pytest.raises(ContainerError, match=r"label biom3d.torch is '9.9.9', wanted '2.13.0\+cpu'"):
            check_image(docker_client, load_table(), lookup("cpu"), "biom3d-test/lie:1")
    finally:
        container.remove()
        docker_client.images.remove("biom3d-test/lie:1")


def test_the_lock_says_what_the_image_is_and_keeps_rows_that_are_still_true(docker_client, cpu_image, checkout):
    table = load_table(checkout)
    share_cache(checkout)
    build_image(docker_client, table, "cpu", REPORT)
    row = lock_images(docker_client, table, ["cpu", "cuda"], REPORT).images["cpu"]
    assert (row.torch, row.python[:4], row.base) == ("2.13.0+cpu", "3.11", base_digest(table, "bookworm"))
    assert read_lock(checkout).images["cpu"] == row
    docker_client.images.remove(lookup("cpu", checkout).reference)
    assert lock_images(docker_client, table, ["cpu"], REPORT).images["cpu"] == row


def share_cache(checkout):
    """Let a small checkout use the wheels that were fetched for the real one."""
    from biom3d.images.table import CHECKOUT

    (checkout / ".cache").mkdir()
    (CHECKOUT / ".cache" / "wheels").mkdir(parents=True, exist_ok=True)  # not yet, where the image was there before
    (checkout / ".cache" / "wheels").symlink_to(CHECKOUT / ".cache" / "wheels")
