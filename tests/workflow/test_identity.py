"""What makes a result old, and what does not."""

import dataclasses

import pytest
from biom3d_workflow import schema
from biom3d_workflow.identity import NEUTRAL, PACKAGES, PLAN, Identities, Software, longer
from biom3d_workflow.image import Image, find_image
from biom3d_workflow.software import find_software, step_numbers

from biom3d.steps import NUMBERS

ROWS = ["A\tdata/a/images\tdata/a/masks\tm", "B\tdata/b/images\tdata/b/masks\t\tm"]
JOBS = [
    *(("check", "B"), ("preprocess", "m"), ("train", "m", "0"), ("predict", "m", "B"), ("evaluate", "m", "B")),
    *(("export_labels", "m", "B"), ("overlay", "m", "B"), ("export_model", "m"), ("curves", "m"), ("summary",)),
    *(("quality", "m", "B"), ("qualities",)),
]
OURS = Software({"numpy": "2.4.6", "torch": "2.13.0+cpu", "matplotlib": "3.11.2"})


@pytest.fixture
def texts(request_of):
    """The identity of every job, by its rule."""

    def of(options: str = "", rows=ROWS, software=OURS, numbers=NUMBERS) -> dict[str, str]:
        project = request_of(f"models:\n  m: {{{options}}}\n", rows)
        identities = Identities(project, numbers, software, software)
        return {rule: identities.of(rule, *subject) for rule, *subject in JOBS}

    return of


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {rule for rule in before if before[rule] != after[rule]}


FOLLOWS_MODEL = {"predict", "evaluate", "export_labels", "overlay", "quality", "export_model", "curves"}


def test_every_option_has_a_neutral_value_so_that_a_new_one_makes_nothing_old():
    assert set(NEUTRAL) == set(schema.option_defaults()) - {"location", "path"}


@pytest.mark.parametrize("option", PLAN)
def test_an_option_of_the_training_makes_the_model_and_what_follows_old(texts, option):
    values = {
        "plan": "p.yaml",
        "fine_tune": "x",
        "ct_norm": "true",
        "skip_bad": "true",
        "is_2d": "true",
        "instances": "true",
        "label_values": "[4]",
    }
    values |= {"preset": "small", "device": "cpu", "optimizer": "sgd", "patch_size": "[8, 8, 8]", "max_dim": 64}
    found = changed(texts(), texts(f"{option}: {values.get(option, 3)}"))
    assert found - {"check"} == {"preprocess", "train"} | FOLLOWS_MODEL


def test_options_of_later_steps_leave_the_model_alone(texts):
    assert changed(texts(), texts("tta: true")) == {"predict", "evaluate", "export_labels", "overlay", "quality"}
    assert changed(texts(), texts("formats: [ome-zarr]")) == {"export_labels"}
    assert changed(texts(), texts("strict: true")) == set()
    assert changed(texts(), texts("class_names: [soma]")) == {"export_labels"}


@pytest.mark.parametrize(
    ("key", "old"),
    [
        ("image_key", {"check", "predict", "evaluate", "export_labels", "overlay", "quality"}),
        ("mask_key", {"check", "evaluate", "overlay"}),
    ],
)
def test_another_array_of_the_files_makes_what_reads_it_old(request_of, key, old):
    project = request_of("models:\n  m: {}\n", ROWS)
    row = dataclasses.replace(project.datasets["B"], **{key: "volumes/other"})
    other = dataclasses.replace(project, datasets={**project.datasets, "B": row})
    before, after = (
        {rule: Identities(one, NUMBERS).of(rule, *subject) for rule, *subject in JOBS} for one in (project, other)
    )
    assert changed(before, after) == old


def test_to_write_out_what_is_so_anyway_changes_nothing(texts):
    assert texts() == texts("num_epochs: 100, folds: 5, num_steps: 250.0, keep: none")


def test_beside_a_given_plan_what_the_model_says_counts_although_it_is_the_default(texts):
    assert changed(texts("plan: p.yaml"), texts("plan: p.yaml, num_epochs: 100")) >= {"train", "predict"}


def test_the_order_of_rows_and_absolute_paths_change_nothing(texts, folder):
    assert texts() == texts(rows=[f"B\t{folder}/data/b/images\t{folder}/data/b/masks\t\tm", ROWS[0]])


def test_another_name_of_a_row_changes_nothing_but_the_summary(texts, request_of):
    before = texts()
    project = request_of("models:\n  m:\n", ["A\tdata/a/images\tdata/a/masks\tm", ROWS[1].replace("B", "C")])
    after = Identities(project, NUMBERS, OURS, OURS)
    assert after.of("predict", "m", "C") == before["predict"]
    assert after.of("summary") != before["summary"]


def test_another_file_or_spacing_makes_what_reads_it_old(texts, folder):
    before = texts()
    (folder / "data/b/images/4.tif").touch()
    from biom3d_workflow.volumes import list_volumes

    list_volumes.cache_clear()
    assert changed(before, texts()) == {"check", "predict", "evaluate", "export_labels", "overlay", "quality"}
    again = changed(texts(), texts(rows=[ROWS[0] + "\t\t1,2,3", ROWS[1]]))
    assert again == {"preprocess", "train"} | FOLLOWS_MODEL


@pytest.mark.parametrize("software", [{"torch": "2.14.0"}, {"numpy": "2.5.0"}])
def test_other_versions_and_numbers_never_train_again(texts, software):
    other = dataclasses.replace(OURS, versions={**OURS.versions, **software})
    raised = {step: number + 1 for step, number in NUMBERS.items()}
    assert "predict" in changed(texts(), texts(software=other))
    assert changed(texts(), texts(numbers=raised)) == FOLLOWS_MODEL | {"summary", "qualities"}
    assert {"check", "preprocess", "train"} & changed(texts(), texts(software=other, numbers=raised)) == set()


def test_a_build_of_the_same_version_changes_nothing(texts):
    assert texts() == texts(software=Software({**OURS.versions, "torch": "2.13.0+cu130"}))


def test_a_model_that_others_start_from_is_part_of_them(request_of):
    def of(options):
        config = f"models:\n  m: {{{options}}}\n  n: {{fine_tune: logs/m/fold_0}}\n"
        return Identities(request_of(config, [*ROWS, "C\tdata/a/images\tdata/a/masks\tn"]), NUMBERS).of(
            "train", "n", "0"
        )

    assert of("seed: 0") != of("seed: 1")


def test_models_that_start_from_each_other_have_a_text(request_of):
    config = "models:\n  m: {fine_tune: logs/n/fold_0}\n  n: {fine_tune: logs/m/fold_0}\n"
    project = request_of(config, [*ROWS, "C\tdata/a/images\tdata/a/masks\tn"])
    assert Identities(project, NUMBERS).of("train", "n", "0")  # Snakemake says what is wrong


def test_more_epochs_are_a_longer_training_and_anything_else_another(texts):
    def of(options):
        return texts(options)["train"]

    assert longer(of("num_epochs: 5"), of("num_epochs: 8")) == (5, 8)
    assert longer(of("num_epochs: 5"), of("")) == (5, 100)
    for other in ("num_epochs: 3", "num_epochs: 5", "num_epochs: 8, seed: 1"):
        assert longer(of("num_epochs: 5"), of(other)) is None
    assert longer(None, of("")) is None


def test_the_numbers_are_those_of_the_package():
    assert step_numbers() == NUMBERS
    assert set(PACKAGES) | {"check", "preprocess", "train"} == set(NUMBERS)


def test_the_image_of_ours_counts_by_its_lock_and_of_others_by_its_content():
    image = Image("docker://x", "sha256:1")
    here, there = find_software("cpu", image, False), find_software("cpu", image, True)
    assert (here.content, there.content) == ("", "")
    assert there.versions["torch"] == "2.13.0+cpu"
    assert find_software("upstream-0.1.2", find_image("upstream-0.1.2"), True).content.startswith("sha256:")
