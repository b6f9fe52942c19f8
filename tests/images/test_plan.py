from biom3d.images.plan import plan_base, plan_build
from biom3d.images.table import load_table
from tests.images.conftest import change

SNAPSHOT = "https://snapshot.debian.org/archive/debian/20260901T000000Z"


def test_a_base_is_made_with_one_age_and_imported(table):
    make, take = plan_base(table, "bookworm").commands()
    assert make.startswith("SOURCE_DATE_EPOCH=1764547200 mmdebstrap --quiet --variant=minbase")
    assert make.endswith("bookworm base.tar")
    assert take.startswith("docker import base.tar biom3d-workflow/base:bookworm-")


def test_a_base_of_a_registry_is_pulled_by_digest(checkout):
    path, digest = checkout / "containers/images.yaml", "sha256:" + "b" * 64
    text = path.read_text()
    start, end = text.index("    mmdebstrap:"), text.index("  bookworm-ssh:\n")
    path.write_text(f"{text[:start]}    reference: debian:bookworm-slim@{digest}\n\n{text[end:]}")
    table = load_table(checkout)
    assert plan_base(table, "bookworm").commands() == [f"docker pull debian:bookworm-slim@{digest}"]
    assert f"BASE_DIGEST={digest}" in " ".join(plan_build(table, "cpu", "").commands())


def test_a_mirror_of_the_table_is_used(checkout):
    suite = "      suite: bookworm\n"
    change(checkout / "containers/images.yaml", suite, f"{suite}      mirror: {SNAPSHOT}\n")
    make = plan_base(load_table(checkout), "bookworm").commands()[0]
    assert make.endswith(f"base.tar {SNAPSHOT}")


def test_an_image_gets_its_name_only_after_it_was_asked(table):
    plan = plan_build(table, "cpu", "abc")
    commands = plan.commands()
    named = next(i for i, line in enumerate(commands) if line.startswith("docker tag"))
    assert commands[named - 1].startswith("docker run --rm --network none --read-only")
    assert "unverified" in plan.final.tag
    assert not any(f"--tag {plan.image.reference} " in line for line in commands)


def test_variants_differ_in_what_the_table_says(table):
    def words(name):
        return dict(plan_build(table, name, "").final.arguments)

    assert (words("cuda")["TORCH"], words("cuda")["CUDA"], words("cuda")["DRIVER"]) == ("2.13.0", "13.0", "580")
    assert words("cpu")["CUDA"] == ""
    assert words("upstream-0.1.2")["VERSION"] == "0.1.2"
