import dataclasses

import pytest

from biom3d.config import Plan, PlanRequest, check_patch, dump, from_mapping, load_plan, save_plan
from biom3d.errors import ConfigError
from biom3d.planning.fingerprint import make_fingerprint
from biom3d.planning.machine import Machine
from biom3d.planning.plan import make_plan

CPU = Machine("cpu", 8.0, True)


@pytest.fixture
def plan() -> Plan:
    facts = make_fingerprint([(1, 32, 64, 64)] * 4, [(2.0, 1.0, 1.0)] * 4, is_2d=False)
    return make_plan("cells", facts, PlanRequest(), CPU)


def refused(tmp_path, plan, **changes) -> str:
    values = {**dataclasses.asdict(plan), **changes}
    path = tmp_path / "plan.yaml"
    path.write_text(dump(values))
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    return str(caught.value)


def test_a_plan_is_read_back_as_it_was_written(tmp_path, plan):
    save_plan(plan, tmp_path / "plan.yaml")
    assert load_plan(tmp_path / "plan.yaml") == plan


def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path, plan):
    assert "unknown key 'patch_sise'; did you mean 'patch_size'?" in refused(tmp_path, plan, patch_sise=[1, 2, 3])


def test_a_wrong_type_is_named_with_the_value(tmp_path, plan):
    assert "batch_size: got 'two'; wanted int" in refused(tmp_path, plan, batch_size="two")


def test_a_truth_value_is_no_number(tmp_path, plan):
    assert "batch_size: got True" in refused(tmp_path, plan, batch_size=True)


def test_a_patch_that_cannot_be_halved_names_the_axis_and_what_fits(tmp_path, plan):
    message = refused(tmp_path, plan, patch_size=[32, 65, 64], num_pools=[3, 4, 4])
    assert "axis y is 65 but is halved 4 times; use 64 or 80" in message


def test_a_list_of_wrong_length_is_refused(tmp_path, plan):
    assert "patch_size: got [32, 64]; wanted 3 values" in refused(tmp_path, plan, patch_size=[32, 64])


def test_a_missing_key_is_named(tmp_path):
    (tmp_path / "plan.yaml").write_text("desc: x\n")
    with pytest.raises(ConfigError, match=r"missing key.*num_classes"):
        load_plan(tmp_path / "plan.yaml")


def test_an_object_tag_in_a_plan_is_refused(tmp_path):
    (tmp_path / "plan.yaml").write_text("desc: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_plan(tmp_path / "plan.yaml")


def test_a_plan_that_is_no_mapping_is_refused(tmp_path):
    (tmp_path / "plan.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="holds list; wanted a mapping"):
        load_plan(tmp_path / "plan.yaml")


def test_null_means_unknown_where_it_may():
    assert from_mapping(PlanRequest, {"patch_size": None}, "x").patch_size is None


def test_a_patch_of_one_voxel_at_the_bottom_is_refused():
    with pytest.raises(ConfigError, match="shrinks to one voxel"):
        check_patch((4, 4, 4), (2, 2, 2), "plan")
