"""Two processes that write one bundle: one of them writes it, the other one gets a line."""

import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.bundle_write import new_bundle


def test_a_bundle_that_is_being_written_is_refused_at_once(tmp_path):
    target = tmp_path / "new" / "night"
    with new_bundle(target) as partial:
        (partial / "bundle.json").write_text("first")
        with pytest.raises(InputError) as caught, new_bundle(target):
            pytest.fail("a second process must not write")
        assert str(caught.value) == (
            f"{target}: is being written by another process; expected one at a time. "
            "Wait until it has ended, or choose another folder."
        )
    assert [path.name for path in target.parent.iterdir()] == ["night"]
    assert (target / "bundle.json").read_text() == "first"


def test_a_bundle_that_appeared_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "night"
    with new_bundle(target) as partial:
        (partial / "bundle.json").write_text("first")
    with pytest.raises(InputError, match="holds a bundle already"), new_bundle(target, overwrite=False):
        pytest.fail("it was not allowed")
    with new_bundle(target, overwrite=True) as partial:
        (partial / "bundle.json").write_text("second")
    assert [path.name for path in tmp_path.iterdir()] == ["night"]
    assert (target / "bundle.json").read_text() == "second"


def test_another_bundle_may_be_written_beside_it(tmp_path):
    with new_bundle(tmp_path / "a"), new_bundle(tmp_path / "b") as partial:
        (partial / "bundle.json").write_text("b")
    assert (tmp_path / "b" / "bundle.json").exists()


def test_two_exports_to_one_place_give_one_bundle_and_one_line(tcmoa, vif, sources, tmp_path):
    target = tmp_path / "night"
    with new_bundle(target):
        outcome = tcmoa("export", "--weights", "nano", "--task", "vif", "--size", "64x64", "--out", target)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1] == (
        f"tcmoa: error: {target}: is being written by another process; expected one at a time. "
        "Wait until it has ended, or choose another folder."
    )
