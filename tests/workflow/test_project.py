from pathlib import Path

import pytest
from biom3d_workflow import commands

A, B = "A\tdata/a/images\tdata/a/masks", "B\tdata/b/images\tdata/b/masks"
TABLE, CONFIG = "config/datasets.tsv", "config/config.yaml"


def test_a_good_request_has_no_problem(problems_of):
    assert problems_of() == []


def test_pairs_follow_the_table(request_of):
    project = request_of("models: {m: , n: }", [f"{A}\tm,n\tn", f"{B}\t\tm,n"])
    assert project.pairs() == [("n", "A"), ("m", "B"), ("n", "B")]


def test_only_data_sets_with_masks_are_evaluated(request_of):
    project = request_of(rows=[f"{A}\tm\tm", "B\tdata/b/images\t\t\tm"])
    assert project.evaluated_pairs() == [("m", "A")]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([f"{A}\tm", f"{B}\t\tM1"], f"{TABLE}:3: predict: unknown model 'M1'; allowed: m"),
        ([f"{A}\tm", "A\tdata/b/images"], f"{TABLE}:3: dataset: 'A': this name is on line 2; choose another"),
        ([f"{A}\tm", "a\tdata/b/images"], f"{TABLE}:3: dataset: 'a': 'A', the same but for case, is on line 2; choose"),
        ([f"{A}\tm", "m.zip\tdata/b/images\t\t\tm"], f"{TABLE}:3: dataset: 'm.zip' is kept for a result of ours; "),
        ([f"{A}\tm", "C\tdata/b/images\t\tm"], f"{TABLE}:3: masks: empty, but 'C' trains m; give masks or empty train"),
        (
            [f"{A}\tm\t\t1,1,1", f"{B}\tm"],
            f"{TABLE}:3: spacing_um: differs from 'A' (line 2), and both train 'm'; one ",
        ),
    ],
)
def test_a_mistake_in_the_table_is_told(problems_of, rows, problem):
    assert [line[: len(problem)] for line in problems_of(rows=rows)][:1] == [problem]


def test_a_path_of_windows_is_told(problems_of):
    (problem,) = problems_of(rows=[f"{A}\tm", "C\tC:\\Users\\eva\t\t\tm"])
    assert "not found; a path of Windows; in WSL it is '/mnt/c/Users/eva'" in problem


def test_images_in_formats_that_are_not_read_are_told(request_of, folder):
    (folder / "data/b/images/x.czi").touch()
    (folder / "data/c").mkdir()
    (folder / "data/c/y.nd2").touch()
    problems = [str(p) for p in request_of(rows=[f"{A}\tm", f"{B}\t\tm", "C\tdata/c\t\t\tm"]).problems]
    assert any("3: warning: images: passed over: 'x.czi': .czi is not read; convert it" in text for text in problems)
    assert any("4: warning: images: no image that can be read: 'y.nd2': .nd2 is not read" in text for text in problems)


def test_a_row_that_trains_and_is_predicted_is_fine_with_folds(problems_of):
    assert problems_of(rows=[f"{A}\tm\tm"]) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("models: {m: {folds: 1}}", "folds: 1; only the fifth of its images that is kept for validation"),
        ("engine: upstream-0.1.2\nmodels: {m: }", "engine upstream-0.1.2 predicts with all folds"),
    ],
)
def test_scores_that_flatter_are_warned_of(request_of, config, words):
    (problem,) = request_of(config, [f"{A}\tm\tm"]).problems
    assert problem.is_warning
    assert str(problem).startswith(f"{TABLE}:2: warning: predict: 'm' also learns from 'A'")
    assert words in str(problem)


def test_images_without_a_mask_are_no_input_of_the_training(request_of, folder):
    (folder / "data/a/masks/2.tif").unlink()
    expected = [f"data/a/{name}.tif" for name in ("images/1", "images/3", "masks/1", "masks/3")]
    assert request_of().training_inputs("m") == expected
    assert request_of().partial == ["A"]


def test_the_check_of_images_that_teach_nothing_is_not_waited_for_by_a_model_that_is_there(request_of, folder):
    (folder / "data/a/masks/2.tif").unlink()
    assert request_of().needed_checks("m") == ["A"]
    (folder / "logs/m").mkdir(parents=True)
    (folder / "logs/m/plan.yaml").touch()
    assert request_of().needed_checks("m") == []


def test_a_data_set_with_nothing_to_do_is_only_warned_of(request_of):
    problems = request_of(rows=[f"{A}\tm", B]).problems
    assert [(str(p), p.is_warning) for p in problems] == [
        (f"{TABLE}:3: warning: 'B' neither trains a model nor is predicted; nothing is done with it", True)
    ]


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ("  n:", f"{CONFIG}:3: models.n: no data set trains it; write 'n' in column train of {TABLE}, or take the "),
        ("  m2: {plan: p.yaml}", f"{CONFIG}:3: models.m2.plan: file 'p.yaml' not found; give a plan file"),
        ("  m2: {fine_tune: logs/x}", f"{CONFIG}:3: models.m2.fine_tune: 'logs/x' not found; give a model folder, or "),
        ("  m2: {fine_tune: logs/m2/fold_0}", f"{CONFIG}:3: models.m2.fine_tune: 'logs/m2/fold_0' is what this model "),
        ("  M:", f"{CONFIG}:3: models.M: differs from 'm' by case only; choose another name"),
        ("  steps:", f"{CONFIG}:3: models.steps: is kept for files of ours; choose another name"),
        ("  a.partial:", f"{CONFIG}:3: models.a.partial: is kept for files of ours; choose another name"),
    ],
)
def test_a_mistake_about_a_model_is_told(problems_of, models, problem):
    trained = "m,m2" if "m2" in models else "m"
    found = problems_of(f"models:\n  m:\n{models}", [f"{A}\t{trained}", f"{B}\t\tm"])
    assert problem in [line[: len(problem)] for line in found]


def test_models_that_share_masks_must_agree_about_the_classes(problems_of):
    found = problems_of("models: {m: , n: {num_classes: 2}}", [f"{A}\tm,n"])
    expected = "masks: models with different num_classes use them (m: 1, n: 2); give each its own row"
    assert found == [f"{TABLE}:2: {expected}"]


def test_a_model_may_start_from_another_of_the_list(problems_of):
    assert problems_of("models: {m: , n: {fine_tune: logs/m/fold_0}}", [f"{A}\tm,n"]) == []


def test_a_missing_table_is_told(problems_of, folder):
    found = problems_of("datasets: nowhere.tsv\nmodels: {m: }")
    assert found[0] == "nowhere.tsv: cannot be read: No such file or directory"


def test_existence_is_not_looked_at_when_linting(folder):
    from biom3d_workflow.project import load_project

    Path("config/datasets.tsv").write_text("dataset\timages\tmasks\ttrain\nA\tno/im\tno/msk\tm\n")
    assert load_project({"models": {"m": None}}, [CONFIG], {}, look_at_files=False).problems == ()


LOST = [
    ("C\tdata/x\t\t\tm", "images: folder 'data/x' not found; give a folder or file"),
    ("C\thttps://h.org/x.zarr\t\t\tm", "images: a URL: the workflow reads what lies here or"),
    ("C\tdata/b/images\tx\t\tm", "masks: folder 'x' not found; give a folder or file, or leave it empty"),
    ("C\tdata\t\t\tm", "images: no image in 'data'; wanted files that end in .ome.tiff, "),
    ("C\tdata/b/images/1.tif/x\t\t\tm", "images: folder 'data/b/images/1.tif/x' not found; give a folder or file"),
    ("C\tdata/demo/x\t\t\tm", "images: 'data/demo/x' not found; `make demo` fetches the demo data"),
]


@pytest.mark.parametrize(("row", "why"), LOST)
def test_a_row_that_cannot_be_read_is_set_aside_and_the_others_go_on(request_of, row, why):
    project = request_of(rows=[f"{A}\tm", f"{B}\t\tm", row])
    (problem,) = project.problems
    assert problem.is_warning
    assert str(problem).startswith(f"{TABLE}:4: warning: {why}")
    assert project.unreadable["C"].startswith(why)
    assert (project.pairs(), project.asked_pairs()) == ([("m", "B")], [("m", "B"), ("m", "C")])
    assert project.inputs(project.datasets["C"]) == ([], [])


@pytest.mark.parametrize(("row", "why"), LOST)
def test_a_table_of_which_nothing_can_be_read_is_refused(problems_of, row, why):
    assert problems_of(rows=[row.replace("\t\tm", "\tm")])[-1].startswith(f"{TABLE}:2: {why}")


def test_a_link_that_leads_nowhere_is_named(request_of):
    Path("data/a/images/4.tif").symlink_to("nowhere")
    project = request_of(rows=[f"{A}\tm", f"{B}\t\tm"])
    assert project.unreadable["A"].startswith(
        "images: 'data/a/images/4.tif' is a link that leads nowhere; take it away"
    )


@pytest.mark.parametrize("engine", ["biom3d", "upstream-0.1.2"])
def test_what_our_engine_segments_may_have_a_part_that_cannot_be_read(request_of, engine):
    Path("data/b/images/4.tif").symlink_to("nowhere")
    project = request_of(f"engine: {engine}\nmodels: {{m: }}", [f"{A}\tm", f"{B}\t\tm"])
    is_ours = engine == "biom3d"
    row = project.datasets["B"]
    assert ("B" in project.unreadable, "--skip_bad" in commands.check(row, project.models, is_ours)) == (
        not is_ours,
        is_ours,
    )


def test_what_cannot_be_read_is_told_with_the_mistakes_of_the_table(problems_of):
    found = problems_of(rows=[f"{A}\tm", "C\tdata/x\t\t\tm2"])
    assert [line.split("; ")[0] for line in found] == [
        f"{TABLE}:3: predict: unknown model 'm2'",
        f"{TABLE}:3: images: folder 'data/x' not found",
    ]


def test_a_consequence_is_not_shown_before_its_cause(problems_of):
    assert [line.split("; ")[0] for line in problems_of(rows=[f"{A}\tmm"])] == [f"{TABLE}:2: train: unknown model 'mm'"]


def test_a_model_that_starts_from_one_that_cannot_be_trained_waits_too(request_of):
    models = "models: {m: {folds: 1}, n: {folds: 1, fine_tune: logs/m/fold_0}, o: {folds: 1}}"
    project = request_of(models, [f"{A}\tn,o", "C\tdata/x\tdata/x\tm"])
    assert project.trainable() == ["o"]
    assert project.stuck["n"] == "it starts from model 'm', which is not trained yet"


def test_single_files_without_permission_are_left_out_where_bad_volumes_are(request_of):
    Path("data/a/images/0.tif").symlink_to("nowhere")
    project = request_of("models: {m: {skip_bad: true}}", [f"{A}\tm", f"{B}\t\tm"])
    assert (project.unreadable, project.inputs(project.datasets["A"])[0][0]) == ({}, "data/a/images/1.tif")
    assert "A" in request_of(rows=[f"{A}\tm", f"{B}\t\tm"]).unreadable


def test_a_row_leaves_out_bad_volumes_only_if_all_its_models_do(request_of):
    project = request_of("models: {m: {skip_bad: true}, n: }", [f"{A}\tm,n", f"{B}\tm"])
    flags = ["--skip_bad" in commands.check(row, project.models) for row in project.datasets.values()]
    assert flags == [False, True]
    assert "--skip_bad" in commands.preprocess(project.models["m"], project.training_sets("m"))


def test_strict_goes_to_what_reads_images_and_makes_nothing_old(request_of):
    project = request_of("models: {m: {strict: true}, n: }", [f"{A}\tm,n", f"{B}\tm"])
    flags = ["--strict" in commands.check(row, project.models) for row in project.datasets.values()]
    assert flags == [False, True]
    row = project.datasets["A"]
    for name, is_there in (("m", True), ("n", False)):
        model = project.models[name]
        words = [commands.predict(model, row), commands.evaluate(model, row), commands.preprocess(model, [row])]
        assert ["--strict" in line for line in words] == [is_there] * 3


def test_names_of_classes_go_to_the_export(request_of, problems_of):
    given = "models: {m: {num_classes: 2, class_names: [the soma, axon], label_values: [1, 4]}}"
    project = request_of(given, [f"{A}\tm"])
    words = commands.export_labels(project.models["m"], project.datasets["A"])
    assert words.endswith("--class_names 'the soma' axon --label_values 1 4")
    (problem,) = problems_of("models: {m: {class_names: [a, b]}}", [f"{A}\tm"])
    assert problem.startswith(
        f"{CONFIG}:1: models.m.class_names: 2 names for 1 class(es) (num_classes); wanted as many"
    )


def test_biom3d_itself_leaves_nothing_out(problems_of):
    (strict,) = problems_of("engine: upstream-0.1.2\nmodels: {m: {strict: true}}", [f"{A}\tm"])
    assert strict.startswith(f"{CONFIG}:2: models.m.strict: engine 'upstream-0.1.2' warns of nothing; ")
    (problem,) = problems_of("engine: upstream-0.1.2\nmodels: {m: {skip_bad: true}}", [f"{A}\tm"])
    assert problem.startswith(f"{CONFIG}:2: models.m.skip_bad: engine 'upstream-0.1.2' cannot leave out bad volumes; ")
