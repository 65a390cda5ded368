"""The graph contract: names, types and shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime.contract import SOURCE_ROLES, TASKS, Contract, token_grid, token_pixels


def test_names_types_and_shapes_of_all_tensors():
    contract = Contract(100, 130, (13, 17), prompts=2, batch=3, y_channels=1, with_prompt=True)
    assert [(s.name, s.dtype, s.shape) for s in contract.inputs] == [
        ("x", "uint8", (3, 100, 130, 3)),
        ("y", "uint8", (3, 100, 130, 1)),
        ("prompt_scale", "float32", (3, 13, 17)),
        ("prompt_shift", "float32", (3, 13, 17)),
    ]
    assert [(s.name, s.dtype, s.shape) for s in contract.outputs] == [
        ("fused", "uint8", (3, 100, 130, 3)),
        ("prompt", "float32", (3, 2, 2, 13, 17)),
    ]


def test_the_prompt_output_is_optional():
    assert [s.name for s in Contract(8, 8, (1, 1), prompts=2).outputs] == ["fused"]


@pytest.mark.parametrize(("upsample", "pixels"), [(True, 8), (False, 16)])
def test_a_token_is_half_a_patch_if_the_model_upsamples(upsample, pixels):
    assert token_pixels(upsample) == pixels


@given(st.integers(1, 5000), st.integers(1, 5000), st.booleans())
def test_the_grid_is_the_smallest_that_covers_the_frame(height, width, upsample):
    side = token_pixels(upsample)
    for length, tokens in zip((height, width), token_grid(height, width, upsample), strict=True):
        assert (tokens - 1) * side < length <= tokens * side


def test_every_task_has_a_role_for_each_source():
    assert set(SOURCE_ROLES) == set(TASKS)
    assert all(roles.keys() == {"x", "y"} for roles in SOURCE_ROLES.values())
