import dataclasses
from pathlib import Path

import pytest
import yaml
from biom3d_workflow.project import load_project

from biom3d.config import PlanRequest
from biom3d.data.labels import PLAIN
from biom3d.pred import PredictOptions
from tests.workflow.conftest import ROOT

MISTAKES = [
    ("model: 1\nmodels: {m: }", "1: model: unknown key; did you mean 'models'? allowed: datasets, engine, "),
    ("models:\n  m:\n    epochs: 3", "3: models.m.epochs: unknown key; did you mean 'num_epochs'? allowed: "),
    ("models:\n  m:\n    folds: many", '3: models.m.folds: found "many" (text); wanted: a whole number, at least 1, '),
    ("models:\n  m: {folds: 0}", "2: models.m.folds: found 0; wanted: a whole number, at least 1, at most 20"),
    ("models:\n  m: {tta: 1}", "2: models.m.tta: found 1; wanted: true or false"),
    ("models:\n  m: {keep: all}", '2: models.m.keep: found "all" (text); wanted: one of none, biggest, big'),
    ("models:\n  m: {patch_size: [8, 8]}", "2: models.m.patch_size: found [8, 8]; wanted: a list of 3 items or null, "),
    ("models:\n  m:\n    patch_size: [8, x, 8]", '3: models.m.patch_size.1: found "x" (text); wanted: a whole number'),
    ("models:\n  m: {formats: [zip]}", '2: models.m.formats.0: found "zip" (text); wanted: one of ome-tiff, ome-zarr'),
    ("models:\n  a b: {}", "2: models.a b: not a good name; use letters, digits, '.', '_', '-', at most 100"),
    ("models:\n  1: {}", "2: models.1: YAML does not take this name as text; put it in quotes"),
    ("models:\n  m:\n  m:", "3: models.m: given twice; first on line 2"),
    ("models: [m]", '1: models: found ["m"]; wanted: `key: value` lines, at least 1'),
    ("models: {}", "1: models: found {}; wanted: `key: value` lines, at least 1"),
    ("gpu: 1", " models is missing; What the workflow does"),
    ("engine: nnunet\nmodels: {m: }", '1: engine: found "nnunet" (text); wanted: one of biom3d'),
    ("defaults: {seed: -1}\nmodels: {m: }", "1: defaults.seed: found -1; wanted: a whole number, at least 0"),
]


@pytest.mark.parametrize(("config", "problem"), MISTAKES)
def test_a_mistake_is_told_with_its_line(problems_of, config, problem):
    assert [line[: len("config/config.yaml:" + problem)] for line in problems_of(config)] == [
        "config/config.yaml:" + problem
    ]


def test_all_mistakes_of_both_files_come_in_one_message(problems_of):
    found = problems_of("gpu: x\nmodels:\n  m: {tta: 2, seeds: 1}", rows=["A B\tx"])
    places = [":".join(line.split(":")[:2]) for line in found]
    assert sorted(places) == ["config/config.yaml:1", *["config/config.yaml:3"] * 2, "config/datasets.tsv:2"]


def test_a_typo_in_the_configuration_hides_no_mistake_of_the_table(problems_of):
    row = "A\tdata/a/images\t\tm\tn"
    found = problems_of("models:\n  m: {epochs: 2}", rows=[row, row])
    assert [line.split(";")[0] for line in found] == [
        "config/config.yaml:2: models.m.epochs: unknown key",
        "config/datasets.tsv:3: dataset: 'A': this name is on line 2",
        "config/datasets.tsv:2: predict: unknown model 'n'",
        "config/datasets.tsv:2: masks: empty, but 'A' trains m",
        "config/datasets.tsv:3: predict: unknown model 'n'",
        "config/datasets.tsv:3: masks: empty, but 'A' trains m",
    ]


def test_what_follows_from_models_that_are_not_there_is_not_told(problems_of):
    assert [line.split(":")[0] for line in problems_of("modles: {m: }")] == ["config/config.yaml"] * 2


def test_a_value_of_the_command_line_is_told_as_such(folder):
    config = {"gpu": "x", "models": {"m": None}}
    found = load_project(config, ["config/config.yaml"], {"gpu": "x"}).problems
    assert str(found[0]) == '--config: gpu: found "x" (text); wanted: a whole number, at least 0'


def test_the_line_is_that_of_the_file_that_wins(folder):
    Path("other.yaml").write_text("\n\ngpu: x\n")
    found = load_project({"gpu": "x", "models": {"m": None}}, ["other.yaml", "config/config.yaml"], {}).problems
    assert str(found[0]).startswith("other.yaml:3: gpu")


def test_model_options_override_the_defaults_and_those_the_schema(request_of):
    model = request_of("defaults: {folds: 2, seed: 7}\nmodels: {m: {folds: 3}}").models["m"]
    assert (model.options["folds"], model.options["seed"], model.options["num_epochs"]) == (3, 7, 100)


def test_the_configuration_shows_every_option_with_its_default():
    shown = yaml.safe_load((ROOT / "config/config.yaml").read_text())["defaults"]
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    assert shown == {key: value["default"] for key, value in schema["$defs"]["options"]["properties"].items()}


def test_the_defaults_are_those_of_the_engine():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    ours = {key: value["default"] for key, value in schema["$defs"]["options"]["properties"].items()}
    engine = dataclasses.asdict(PlanRequest())
    assert {key: ours[key] for key in engine} == engine
    steps = {"instances": False, "skip_bad": False, "strict": False}
    steps |= {"tta": PredictOptions().mirror, "keep": PredictOptions().keep, "scores": PredictOptions().scores}
    assert {key: ours[key] for key in steps} == steps
    assert (ours["ignore_label"], ours["label_values"]) == (PLAIN.ignore, None)
    assert set(ours) == set(engine) | set(steps) | {"ignore_label", "label_values", "class_names"} | {
        "plan",
        "fine_tune",
        "formats",
        "location",
        "path",
    }


@pytest.mark.parametrize("name", ["config", "datasets"])
def test_every_key_of_a_schema_is_described(name):
    schema = yaml.safe_load((ROOT / f"workflow/schemas/{name}.schema.yaml").read_text())
    options = schema.get("$defs", {}).get("options", {}).get("properties", {})
    assert all("description" in value for value in [*schema["properties"].values(), *options.values()])
