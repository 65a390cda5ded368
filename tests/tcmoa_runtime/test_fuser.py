"""Fusing frames: shapes, batches, prompts, sizes and channel orders."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from micro_model import frames
from tcmoa_runtime import Fuser, InputError, MissingError, TcmoaError
from tcmoa_runtime.fit import plan_tiles
from tcmoa_runtime.images import stretch_to_uint8, to_frame
from tcmoa_runtime.prompts import pool_to_grid


@pytest.fixture(scope="module")
def load():
    """Function as `Fuser.load`, whose fusers are loaded once and stay open behind a with-block."""
    loaded = {}

    def load(bundle, **options):
        key = (bundle, *options.items())
        if key not in loaded:
            loaded[key] = Fuser.load(bundle, **options)
        return nullcontext(loaded[key])

    yield load
    for fuser in loaded.values():
        fuser.close()


def test_two_frames_are_fused_into_one(fuser, pair):
    fused = fuser(*pair)
    assert (fused.dtype, fused.shape) == (np.uint8, (100, 130, 3))
    assert fused.std() > 5


def test_the_result_depends_on_both_sources_and_their_order(fuser, pair):
    x, y = pair
    assert (fuser(x, y) != fuser(y, x)).mean() > 0.1
    assert (fuser(x, y) != fuser(x, x)).mean() > 0.1


def test_the_same_frames_give_the_same_result(fuser, pair):
    np.testing.assert_array_equal(fuser(*pair), fuser(*pair))


def test_size_and_grid_are_those_of_the_bundle(fuser):
    assert (fuser.size, fuser.grid) == ((100, 130), (13, 17))


def test_a_batch_equals_single_calls(fuser, four_pairs):
    x, y = four_pairs
    fused = fuser(x, y)
    assert fused.shape == (4, 100, 130, 3)
    for i in range(4):
        np.testing.assert_array_equal(fused[i], fuser(x[i], y[i]))


def test_a_list_of_frames_is_a_batch(fuser, four_pairs):
    x, y = four_pairs
    np.testing.assert_array_equal(fuser(list(x), list(y)), fuser(x, y))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_bundle_of_batch_2_takes_any_number_of_frames(
    load, count, exported, fuser, four_pairs, max_gray_difference
):
    x, y = (frames[:count] for frames in four_pairs)
    shifts = np.linspace(-0.4, 0.4, count * 221).reshape(count, 13, 17)
    with load(exported("batch")) as batched:
        fused, prompts = batched.with_prompt(x, y, shift=shifts)
    expected, expected_prompts = fuser.with_prompt(x, y, shift=shifts)
    assert fused.shape == (count, 100, 130, 3)
    assert prompts.shape == (count, 2, 2, 13, 17)
    assert max_gray_difference(fused, expected) <= 1
    np.testing.assert_allclose(prompts, expected_prompts, atol=1e-4)


def test_a_bundle_of_batch_2_takes_a_single_frame(load, exported, fuser, pair, max_gray_difference):
    with load(exported("batch")) as batched:
        fused = batched(*pair)
    assert fused.shape == (100, 130, 3)
    assert max_gray_difference(fused, fuser(*pair)) <= 1


def test_alpha_1_and_beta_0_equal_the_default_bit_for_bit(fuser, pair):
    default = fuser(*pair)
    np.testing.assert_array_equal(fuser(*pair, scale=1.0, shift=0.0), default)
    np.testing.assert_array_equal(fuser(*pair, scale=np.ones((13, 17)), shift=np.zeros((1, 13, 17))), default)


def test_the_default_prompt_of_the_bundle_is_used(broken, rehash, fuser, pair):
    def set_default(manifest):
        manifest["prompt_default"] = {"scale": 0.5, "shift": 0.25}

    rehash(broken, set_default)
    with Fuser.load(broken) as changed:
        np.testing.assert_array_equal(changed(*pair), fuser(*pair, scale=0.5, shift=0.25))
        np.testing.assert_array_equal(changed(*pair, scale=1, shift=0), fuser(*pair))


def test_prompts_follow_equation_8(fuser, pair):
    """Only the first TC-MoA has equal inputs in both calls, so only its prompts are compared."""
    _, plain = fuser.with_prompt(*pair)
    _, changed = fuser.with_prompt(*pair, scale=0.5, shift=0.2)
    assert plain.shape == (2, 2, 13, 17)
    for source, sign in ((0, 1), (1, -1)):
        expected = 0.5 + 0.5 * (plain[0, source] - 0.5) + sign * 0.2
        np.testing.assert_allclose(changed[0, source], expected, atol=1e-5)


def test_with_prompt_gives_the_same_frame_as_a_call(fuser, pair):
    fused, _ = fuser.with_prompt(*pair, shift=0.1)
    np.testing.assert_array_equal(fused, fuser(*pair, shift=0.1))


def test_with_prompt_is_refused_by_a_bundle_without_prompt_output(load, exported, pair):
    with load(exported("plain")) as plain:
        assert plain(*pair).shape == (100, 130, 3)
        with pytest.raises(InputError, match="Export the bundle again with with_prompt=True"):
            plain.with_prompt(*pair)


def test_a_map_for_each_frame_equals_single_calls(fuser, four_pairs):
    x, y = four_pairs
    rng = np.random.default_rng(0)
    scales, shifts = rng.uniform(0.5, 1.5, (4, 13, 17)), rng.uniform(-0.3, 0.3, (4, 13, 17))
    fused = fuser(x, y, scale=scales, shift=shifts)
    for i in range(4):
        np.testing.assert_array_equal(fused[i], fuser(x[i], y[i], scale=scales[i], shift=shifts[i]))


def test_region_is_the_mean_of_the_mask_over_each_token(fuser):
    mask = np.random.default_rng(0).random((100, 130)) < 0.3
    result = fuser.region(mask, inside=0.4, outside=-0.2)
    assert (result.dtype, result.shape) == (np.float32, (13, 17))
    for row in range(13):
        for column in range(17):
            share = mask[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].mean()
            assert result[row, column] == pytest.approx(-0.2 + 0.6 * share, abs=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_region_of_empty_and_full_masks(dtype, fuser):
    np.testing.assert_allclose(fuser.region(np.zeros((100, 130), dtype), 0.4, -0.2), -0.2, rtol=1e-6)
    np.testing.assert_allclose(fuser.region(np.ones((100, 130), dtype), 0.4, -0.2), 0.4, rtol=1e-6)


def test_region_accepts_a_mask_of_one_number_per_token(fuser):
    mask = np.eye(13, 17)
    np.testing.assert_array_equal(fuser.region(mask, 1, 0), mask)


def test_region_changes_prompts_inside_the_mask_only(fuser, pair):
    mask = np.zeros((100, 130), bool)
    mask[:48, :64] = True
    _, plain = fuser.with_prompt(*pair)
    _, changed = fuser.with_prompt(*pair, shift=fuser.region(mask, 0.3, 0))
    difference = changed[0, 0] - plain[0, 0]
    np.testing.assert_allclose(difference[:6, :8], 0.3, atol=1e-5)
    np.testing.assert_allclose(difference[6:], 0, atol=1e-6)
    np.testing.assert_allclose(difference[:, 8:], 0, atol=1e-6)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((99, 130)),
        np.zeros((100, 130, 1)),
        np.zeros(0),
        np.full((100, 130), 255, np.uint8),
        np.full((100, 130), -0.1),
        np.full((100, 130), np.nan),
        np.full((13, 17), "a"),
        [[1, 2], [3]],
    ],
    ids=["size", "3-D", "empty", "255", "negative", "NaN", "text", "ragged"],
)
def test_region_refuses_values_that_are_not_a_mask(load, mask, vif):
    with load(vif, fit="exact") as fuser, pytest.raises(InputError, match=r"^mask: "):
        fuser.region(mask, 1, 0)


def test_region_of_an_empty_mask_is_refused_by_every_fit(fuser):
    with pytest.raises(InputError, match=r"^mask: shape \[0, 0\]; expected \[100, 130\]"):
        fuser.region(np.zeros((0, 0)), 1, 0)


def test_region_divides_the_frame_evenly_for_a_bundle_that_resizes(load, exported):
    with load(exported("resize")) as resizing:
        assert resizing.bundle.fit == "resize"
        mask = np.random.default_rng(0).random((100, 130)) < 0.5
        expected = pool_to_grid(mask.astype(float), resizing.grid, None)
        np.testing.assert_array_equal(resizing.region(mask, 1, 0), expected)


def test_exact_refuses_another_size_and_names_the_ways_out(load, vif, pair):
    x, y = pair
    line = (
        "x: 129x100; expected 130x100, the size of this bundle. "
        "Set fit to tile, pad or resize, or export a bundle for 129x100."
    )
    with load(vif, fit="exact") as exact:
        with pytest.raises(InputError) as caught:
            exact(x[:, 1:], y)
        assert str(caught.value) == line
        with pytest.raises(InputError, match="y: 130x99; expected 130x100"):
            exact(x, y[1:])
        with pytest.raises(InputError, match="x: 100x130; expected 130x100"):
            exact(x.transpose(1, 0, 2), y.transpose(1, 0, 2))


def test_two_sizes_need_an_alignment(fuser, pair):
    x, y = pair
    with pytest.raises(
        InputError, match=r"^y: 130x99; expected 130x100, the size of x\. Register the two images"
    ):
        fuser(x, y[1:])


def test_pad_refuses_larger_frames(load, vif):
    frame = np.zeros((101, 130, 3), np.uint8)
    with (
        load(vif, fit="pad") as padding,
        pytest.raises(InputError, match=r"^x: 130x101; expected at most 130x100"),
    ):
        padding(frame, frame)


@pytest.mark.parametrize("mode", ["auto", "tile", "pad", "exact", "resize"])
def test_every_fit_gives_frames_of_the_right_size_the_same_bytes(load, mode, vif, fuser, pair):
    with load(vif, fit=mode) as other:
        np.testing.assert_array_equal(other(*pair), fuser(*pair))
        np.testing.assert_array_equal(other.with_prompt(*pair)[1], fuser.with_prompt(*pair)[1])


@pytest.mark.parametrize("mode", ["tile", "pad", "auto"])
def test_a_smaller_frame_is_padded_by_its_edge_and_cropped(load, mode, vif, fuser, pair):
    x, y = (frame[:60, :75] for frame in pair)
    px, py = (np.pad(frame, ((0, 40), (0, 55), (0, 0)), mode="edge") for frame in (x, y))
    with load(vif, fit=mode) as padding:
        fused, prompt = padding.with_prompt(x, y)
    expected, expected_prompt = fuser.with_prompt(px, py)
    np.testing.assert_array_equal(fused, expected[:60, :75])
    np.testing.assert_allclose(prompt, expected_prompt[..., :8, :10], rtol=1e-6)


def test_tiles_are_the_frames_that_the_graph_fuses(load, vif, fuser):
    """Where only one tile covers a pixel, its result is kept."""
    x, y = frames(100, 250, 2, seed=5)
    with load(vif, fit="tile") as tiling:
        fused = tiling(x, y)
    assert fused.shape == x.shape
    plan = plan_tiles((100, 250), (100, 130), 8)
    np.testing.assert_array_equal(fused[:, :40], fuser(x[:, :130], y[:, :130])[:, :40])
    right = plan.columns.starts[-1]
    last = fuser(
        *(np.pad(f[:, right:], ((0, 0), (0, right + 130 - 250), (0, 0)), mode="edge") for f in (x, y))
    )
    np.testing.assert_array_equal(fused[:, -30:], last[:, 250 - right - 30 : 250 - right])


def test_tiles_go_through_the_bundles_batch(load, exported, fuser):
    x, y = frames(150, 300, 2, seed=6)
    with load(exported("batch")) as pairs_of_tiles, load(exported("vif")) as single:
        np.testing.assert_array_equal(pairs_of_tiles(x, y), single(x, y))
        both = pairs_of_tiles(np.stack([x, y]), np.stack([y, x]))
        np.testing.assert_array_equal(both[1], single(y, x))


def test_prompt_maps_are_cut_along_with_the_frame(fuser):
    x, y = frames(100, 250, 2, seed=7)
    grid = fuser.grid_of((100, 250))
    assert grid == (13, 32)
    left = np.zeros(grid, np.float32)
    left[:, :4] = 0.4
    changed = (fuser(x, y, shift=left) != fuser(x, y)).any((0, 2))
    assert changed[:32].all()
    np.testing.assert_array_equal(fuser(x, y, shift=0.4), fuser(x, y, shift=np.full(grid, 0.4)))
    region = fuser.region(np.arange(250)[None] < np.full((100, 1), 32), inside=0.4, outside=0)
    np.testing.assert_array_equal(region, left)
    with pytest.raises(
        InputError, match=r"^prompt_shift: shape \[13, 17\]; expected a number, a map \[13, 32\]"
    ):
        fuser(x, y, shift=np.zeros(fuser.grid))


def test_an_unknown_fit_is_refused(vif):
    with pytest.raises(InputError, match=r"^fit: 'crop'; expected one of exact, resize, pad, tile, auto$"):
        Fuser.load(vif, fit="crop")


@pytest.mark.parametrize("size", [(50, 61), (100, 131), (300, 20), (1, 1)])
def test_resize_gives_the_size_of_x(load, size, vif):
    x, y = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    with load(vif, fit="resize") as resizing:
        assert resizing(x, y).shape == (*size, 3)
        fused, prompt = resizing.with_prompt(np.stack([x, x]), np.stack([y, y]))
    assert fused.shape == (2, *size, 3)
    assert prompt.shape == (2, 2, 2, 13, 17)


def test_a_graph_below_one_token_is_never_tiled(load, exported):
    narrow = exported("narrow")
    x, y = np.random.default_rng(0).integers(0, 256, (2, 30, 50, 3), np.uint8)
    with load(narrow) as automatic, load(narrow, fit="resize") as resizing:
        assert not automatic.bundle.can_tile
        np.testing.assert_array_equal(automatic(x, y), resizing(x, y))
    line = r"^x: 50x30; expected 40x7, the size of this bundle. Set fit to resize, or export a bundle for 50x30\.$"
    with load(narrow, fit="tile") as tiling, pytest.raises(InputError, match=line):
        tiling(x, y)


def test_resize_does_not_change_frames_of_the_right_size(load, vif, fuser, pair):
    with load(vif, fit="resize") as resizing:
        np.testing.assert_array_equal(resizing(*pair), fuser(*pair))


def test_resize_preserves_the_image(load, vif, fuser, pair):
    twice = [np.repeat(np.repeat(f, 2, axis=0), 2, axis=1) for f in pair]
    with load(vif, fit="resize") as resizing:
        large = resizing(*twice)
    # Halving the doubled frames is exact, so only the enlarged result is interpolated and blurred.
    halved = large.reshape(100, 2, 130, 2, 3).mean((1, 3))
    assert np.corrcoef(halved.ravel(), fuser(*pair).ravel())[0, 1] > 0.9


def test_shrinking_averages_pixels(load, vif, pair):
    """Sampling single pixels would turn a fine pattern into a coarse one (aliasing)."""
    plain = [np.repeat(np.repeat(f.clip(20, 235), 2, axis=0), 2, axis=1) for f in pair]
    pattern = 20 * (-1) ** np.indices(plain[0].shape)[:2].sum(0)  # mean 0 over each 2x2 pixels
    fine = [(f + pattern).astype(np.uint8) for f in plain]
    with load(vif, fit="resize") as resizing:
        np.testing.assert_array_equal(resizing(*fine), resizing(*plain))


def test_gray_alpha_and_16_bit_frames_equal_their_conversions(fuser, pair):
    x, y = pair
    gray = y[..., 0]
    deep = gray.astype(np.uint16) * 31 + 7000
    alpha = np.dstack([x, gray])
    expected = fuser(x, np.dstack([gray] * 3))
    np.testing.assert_array_equal(fuser(x, gray), expected)
    np.testing.assert_array_equal(fuser(x, gray[..., None]), expected)
    np.testing.assert_array_equal(fuser(alpha, gray), expected)
    np.testing.assert_array_equal(fuser(x, deep), fuser(x, stretch_to_uint8(deep)))
    np.testing.assert_array_equal(fuser(x[None], deep[None, ..., None])[0], fuser(x, deep))


def test_the_stretch_uses_the_percentiles_given_to_load(load, vif, fuser, pair):
    deep = pair[1][..., 0].astype(np.uint16) * 31
    with load(vif, percentiles=(10, 80)) as hard:
        np.testing.assert_array_equal(hard(pair[0], deep), fuser(pair[0], stretch_to_uint8(deep, (10, 80))))


def test_a_one_channel_source_accepts_gray_and_the_luma_of_color(load, exported, pair):
    x, y = pair
    with load(exported("gray")) as gray:
        expected = gray(x, to_frame(y, "y", 1))
        np.testing.assert_array_equal(gray(x, to_frame(y, "y", 1)[..., 0]), expected)
        np.testing.assert_array_equal(gray(x, y), expected)


def test_a_one_channel_source_equals_gray_in_three_channels(load, exported, fuser, pair, max_gray_difference):
    x, y = pair
    with load(exported("gray")) as gray:
        assert max_gray_difference(gray(x, y[..., 0]), fuser(x, y[..., 0])) <= 1


def test_a_bgr_bundle_gives_the_flipped_result_of_the_rgb_bundle(
    load, exported, fuser, pair, max_gray_difference
):
    flipped = [f[..., ::-1] for f in pair]
    with load(exported("bgr")) as bgr:
        fused = bgr(*flipped)
    assert max_gray_difference(fused[..., ::-1], fuser(*pair)) <= 1
    assert max_gray_difference(fused, fuser(*pair)) > 10


def test_luma_of_a_bgr_bundle_uses_the_weight_of_red_for_red(load, exported, pair, max_gray_difference):
    with load(exported("bgr gray")) as bgr, load(exported("gray")) as rgb:
        fused = bgr(*(f[..., ::-1] for f in pair))
        assert max_gray_difference(fused[..., ::-1], rgb(*pair)) <= 1


def test_use_after_close_is_an_error(vif, pair):
    with Fuser.load(vif) as closed:
        closed(*pair)
    for call in (lambda: closed(*pair), lambda: closed.with_prompt(*pair)):
        with pytest.raises(TcmoaError, match=r"closed\. Load the bundle again"):
            call()
    closed.close()


def test_two_threads_give_the_results_of_one(fuser, four_pairs):
    shifts = np.linspace(-0.5, 0.5, 24)
    jobs = [(four_pairs[0][i % 4], four_pairs[1][i % 4], shift) for i, shift in enumerate(shifts)]
    expected = [fuser(x, y, shift=shift) for x, y, shift in jobs]
    with ThreadPoolExecutor(2) as pool:
        arrived = list(pool.map(lambda job: fuser(job[0], job[1], shift=job[2]), jobs))
    np.testing.assert_array_equal(arrived, expected)


def test_input_frames_are_not_modified(fuser, pair):
    copies = [f.copy() for f in pair]
    fuser(*pair, shift=0.3)
    np.testing.assert_array_equal(pair, copies)


@pytest.mark.parametrize(
    ("pick", "words"),
    [
        (lambda x, y: (x[:2], y[:3]), "expected the same number of frames"),
        (lambda x, y: (x[0], y[:1]), "expected the same number of frames"),
        (lambda x, y: (x[:1], y[0]), "expected the same number of frames"),
        (lambda x, y: (x[:0], y[:0]), "holds no frame"),
        (lambda x, y: (x[None], y[None]), "expected .H, W."),
        (lambda x, y: (list(x[:2]), [y[0], y[1, 1:]]), "not an array|y: shape"),
    ],
    ids=["2 and 3", "single and batch", "batch and single", "empty", "5-D", "ragged"],
)
def test_different_numbers_of_frames_are_refused(pick, words, fuser, four_pairs):
    with pytest.raises(InputError, match=words):
        fuser(*pick(*four_pairs))


def test_a_wrong_backend_or_option_is_refused_on_loading(vif, tmp_path):
    with pytest.raises(InputError, match="backend: 'foo'; expected one of auto"):
        Fuser.load(vif, backend="foo")
    with pytest.raises(InputError, match="stretch: 99,1; expected two percentiles"):
        Fuser.load(vif, percentiles=(99, 1))
    with pytest.raises(InputError, match="no such bundle"):
        Fuser.load(tmp_path / "none")


def test_an_input_error_is_a_value_error_and_a_missing_package_an_import_error(vif):
    with pytest.raises(ValueError, match="backend: "):
        Fuser.load(vif, backend="foo")
    assert issubclass(MissingError, ImportError)


any_array = npst.arrays(
    npst.scalar_dtypes(), npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6), fill=st.nothing()
)
anything = (
    any_array
    | st.none()
    | st.text(max_size=5)
    | st.integers()
    | st.floats()
    | st.lists(st.lists(st.integers()))
)


@settings(max_examples=150)
@given(wrong=anything, as_x=st.booleans())
def test_wrong_frames_raise_only_input_errors(wrong, as_x, fuser, pair):
    """None of these small arrays can be a frame of 130x100."""
    x, y = (wrong, pair[1]) if as_x else (pair[0], wrong)
    with pytest.raises(InputError) as caught:
        fuser(x, y)
    assert "\n" not in str(caught.value)


@settings(max_examples=150)
@given(
    value=any_array.filter(lambda a: a.ndim > 0) | st.text(max_size=5) | st.lists(st.integers(), max_size=4)
)
def test_wrong_prompts_raise_only_input_errors(value, fuser, pair):
    """None of these can be a map of 17x13."""
    for options in ({"scale": value}, {"shift": value}):
        with pytest.raises(InputError) as caught:
            fuser(*pair, **options)
        assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(scale=st.floats() | st.floats(-16, 16), shift=st.floats(-16, 16) | st.integers(-(2**63), 2**63 - 1))
def test_any_number_as_a_prompt_fuses_or_is_refused(scale, shift, fuser, pair):
    with np.errstate(over="ignore"):
        largest = np.abs(np.array([scale, shift], np.float64).astype(np.float32)).max()
    if largest <= 16:
        assert fuser(*pair, scale=scale, shift=shift).shape == (100, 130, 3)
    else:
        with pytest.raises(InputError, match=r"holds NaN or infinity|expected -16 to 16"):
            fuser(*pair, scale=scale, shift=shift)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_daemon_threads_may_fuse_while_the_interpreter_ends(backend, vif, fresh_python):
    """Returning from native code while it ends would abort the process (exit code 134)."""
    outcome = fresh_python(f"""
import threading
import numpy
from tcmoa_runtime import Fuser
fuser = Fuser.load({str(vif)!r}, {backend!r}, threads=1)
frame = numpy.zeros((*fuser.size, 3), numpy.uint8)
has_begun = threading.Semaphore(0)
def fuse():
    while True:
        fuser(frame, frame)
        has_begun.release()
for _ in range(3):
    threading.Thread(target=fuse, daemon=True).start()
for _ in range(3):
    has_begun.acquire()
""")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
