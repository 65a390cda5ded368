"""Alignment: known displacements are recovered, and pairs that do not determine one are refused."""

import cv2
import numpy as np
import pytest

from tcmoa_calibration.align.estimate import estimate_alignment, frame_points, jackknife_px
from tcmoa_calibration.align.preview import draw_preview
from tcmoa_calibration.align.pyramid import PyramidLevel, centered_to_pixels, edge_plane, level_sizes
from tcmoa_calibration.align.refine import normal_equations
from tcmoa_calibration.sample_pairs import SamplePair, read_sample_pairs
from tcmoa_export.photographs import PHOTOGRAPHS, make_pair
from tcmoa_runtime.alignment import map_points
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_frame, resize_frame, write_image
from tcmoa_runtime.options.align import AlignOptions
from tcmoa_runtime.pairs import find_pairs

SIZE = (120, 160)
READ = {"min_pairs": 4, "seed": 0, "same_size": False}
MARGIN = 40
"""Pixels of the scene around what x sees, so that y has no replicated edges."""


@pytest.fixture(autouse=True)
def one_thread():
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def turned(degrees, zoom, right, down, size):
    """Matrix of a rotation and zoom about the frame's center, and a shift in pixels."""
    (h, w), angle = size, np.deg2rad(degrees)
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    center = np.array([[1, 0, (w - 1) / 2], [0, 1, (h - 1) / 2], [0, 0, 1]])
    return center @ np.array([[c, -s, right], [s, c, down], [0, 0, 1]]) @ np.linalg.inv(center)


def two_views(matrix, size=SIZE, count=4, swap=False):
    """Pairs of one scene each: y shows at `matrix` @ p what x shows at p, in another contrast."""
    h, w = size
    inset = np.array([[1, 0, MARGIN], [0, 1, MARGIN], [0, 0, 1.0]])
    samples = []
    for number in range(count):
        pair = make_pair("vif", PHOTOGRAPHS[number % 3], (h + 2 * MARGIN, w + 2 * MARGIN))
        x, y = (frame[:, ::-1] if number >= 3 else frame for frame in (pair.x, pair.y))
        # The pixel q of y is the scene's at inset @ matrix^-1 @ q.
        back = inset @ np.linalg.inv(matrix)
        y = cv2.warpPerspective(y, back, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        x = np.ascontiguousarray(x[MARGIN : MARGIN + h, MARGIN : MARGIN + w])
        samples.append(SamplePair(str(number), y, x) if swap else SamplePair(str(number), x, y))
    return samples


def mean_distance(found, matrix, size=SIZE):
    """Mean distance in pixels over the frame."""
    points = frame_points(size)
    return float(np.hypot(*(map_points(found, points) - map_points(matrix, points))).mean())


CASES = {
    "translation": turned(0, 1, 7.3, -4.6, SIZE),
    "similarity": turned(-2.5, 1.04, -5, 3, SIZE),
    "affine": turned(1.5, 0.97, 4, 2, SIZE) @ np.array([[1.03, 0.02, -2], [0, 0.98, 1], [0, 0, 1.0]]),
    "homography": turned(1, 1.02, 3, -4, SIZE) @ np.array([[1, 0, 0], [0, 1, 0], [3e-4, -2e-4, 1.0]]),
}


@pytest.mark.parametrize("model", CASES)
def test_a_known_displacement_is_found_by_the_simplest_model(model):
    estimate = estimate_alignment(two_views(CASES[model]))
    found = estimate.alignment
    assert found.model == model
    assert mean_distance(found.matrix, CASES[model]) < 0.3
    assert found.residual_px < 0.5
    assert found.score_after > found.score_before + 0.05
    assert set(estimate.scores) == {"identity", "translation", "similarity", "affine", "homography"}
    assert (found.source, found.pairs, found.seed) == ("y", 4, 0)
    assert not estimate.already_aligned


def test_a_given_model_is_used():
    estimate = estimate_alignment(two_views(CASES["translation"]), AlignOptions(model="similarity"))
    assert estimate.alignment.model == "similarity"
    assert set(estimate.scores) == {"similarity"}
    assert mean_distance(estimate.alignment.matrix, CASES["translation"]) < 0.3


def test_moving_x_gives_the_inverse_of_moving_y():
    samples = two_views(CASES["similarity"], swap=True)
    found = estimate_alignment(samples, AlignOptions(move="x", model="similarity")).alignment
    assert found.source == "x"
    assert mean_distance(found.matrix, CASES["similarity"]) < 0.3
    other = estimate_alignment(samples, AlignOptions(model="similarity")).alignment
    assert mean_distance(other.matrix, np.linalg.inv(CASES["similarity"])) < 0.3


def test_inverted_contrast_gives_the_same_matrix():
    inverted = [SamplePair(s.name, s.x, 255 - s.y) for s in two_views(CASES["translation"])]
    found = estimate_alignment(inverted, AlignOptions(model="translation")).alignment
    assert mean_distance(found.matrix, CASES["translation"]) < 0.3
    plane = edge_plane(inverted[0].x[..., 0])
    np.testing.assert_allclose(edge_plane(255 - inverted[0].x[..., 0]), plane, atol=1e-3)


def test_aligned_pairs_give_the_identity():
    estimate = estimate_alignment(two_views(np.eye(3)))
    assert estimate.already_aligned
    np.testing.assert_array_equal(estimate.alignment.matrix, np.eye(3))
    assert estimate.alignment.score_before == estimate.alignment.score_after
    assert estimate.alignment.residual_px < 0.5
    assert estimate.shift_px == 0


def test_one_mismatched_pair_changes_the_matrix_little():
    samples = two_views(CASES["similarity"], count=6)
    samples[1] = SamplePair("mixed up", samples[1].x, samples[2].y)
    found = estimate_alignment(samples, AlignOptions(model="similarity")).alignment
    assert mean_distance(found.matrix, CASES["similarity"]) < 0.5


def test_the_same_pairs_give_the_same_matrix():
    samples = two_views(CASES["translation"])
    first, second = (estimate_alignment(samples, AlignOptions(model="affine")) for _ in range(2))
    assert first == second


def noise(count=5):
    rng = np.random.default_rng(0)
    blurred = [
        cv2.GaussianBlur(rng.integers(0, 256, (*SIZE, 3), np.uint8), (0, 0), 2) for _ in range(2 * count)
    ]
    return [SamplePair(str(i), *blurred[2 * i : 2 * i + 2]) for i in range(count)]


def test_pairs_of_different_scenes_are_refused():
    samples = two_views(np.eye(3), count=3)
    mixed = [SamplePair(f"{a.name}{b.name}", a.x, b.y) for a in samples for b in samples if a is not b]
    with pytest.raises(
        InputError, match=r"pairs: gradient correlation of held-out pairs .* at least 0\.08\. "
    ):
        estimate_alignment(mixed, AlignOptions(model="similarity"))


def test_noise_is_refused_with_score_limit_and_remedy():
    with pytest.raises(
        InputError, match=r"held-out pairs is -?0\.0\d+ after alignment; expected at least 0\.08"
    ) as caught:
        estimate_alignment(noise(), AlignOptions(model="similarity"))
    assert "Provide more pairs, with structures that both sources show" in str(caught.value)
    assert "within 20 pixels, 6 degrees and 12 % of each other" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_that_contradict_each_other_are_refused():
    near, far = (two_views(turned(0, 1, shift, 0, SIZE), count=3) for shift in (-6, 6))
    with pytest.raises(
        InputError, match=r"uncertainty is \d+\.\d+ px; expected at most 1\.5 px\..*a simpler model\."
    ):
        estimate_alignment(
            [s for both in zip(near, far, strict=True) for s in both], AlignOptions(model="translation")
        )


def test_ramps_without_structure_are_refused():
    ramp = np.repeat(np.tile(np.linspace(0, 200, SIZE[1]).astype(np.uint8), (SIZE[0], 1))[..., None], 3, 2)
    tall = np.repeat(
        np.tile(np.linspace(0, 90, SIZE[0]).astype(np.uint8)[:, None], (1, SIZE[1]))[..., None], 3, 2
    )
    with pytest.raises(InputError, match="gradient correlation of held-out pairs"):
        estimate_alignment([SamplePair(str(i), ramp, tall) for i in range(4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"move": "z"}, "move: 'z'; expected one of x, y"),
        ({"model": "rigid"}, "model: 'rigid'; expected one of auto, identity, translation"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        estimate_alignment(noise(), AlignOptions(**options))


def test_too_few_pairs_and_too_small_frames():
    with pytest.raises(InputError, match="pairs: 3 of 3 are usable; expected at least 4"):
        estimate_alignment(noise(3))
    small = [SamplePair(s.name, s.x[:40], s.y[:40]) for s in noise()]
    with pytest.raises(InputError, match="160x40; expected at least 48 pixels a side"):
        estimate_alignment(small)


def test_each_image_of_a_pair_is_resized_by_itself(tmp_path):
    samples = noise(6)
    for number, sample in enumerate(samples):
        write_image(tmp_path / f"{number}_x.png", sample.x)
        write_image(tmp_path / f"{number}_y.png", resize_frame(sample.y, (60, 90)))
    write_image(tmp_path / "2_y.png", np.full((60, 90, 3), 7, np.uint8))
    (tmp_path / "3_x.png").write_bytes(b"no image")
    found = find_pairs(tmp_path)
    read, skipped = read_sample_pairs(found, SIZE, max_pairs=32, **READ)
    assert sorted(s.name for s in read) == ["0", "1", "4", "5"]
    assert {s.y.shape for s in read} == {(*SIZE, 3)}
    assert sorted(line[:2] for line in skipped) == ["2:", "3:"]
    assert len(read_sample_pairs(found, SIZE, max_pairs=4, **READ)[0]) == 4
    write_image(tmp_path / "0_x.png", np.zeros((60, 90, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"3 of 6 are usable; expected at least 4\. .*Skipped: .*a single color"
    ):
        read_sample_pairs(found, SIZE, max_pairs=32, **READ)


def test_the_jackknife_is_the_standard_error_of_a_mean():
    shifts = np.random.default_rng(0).normal(size=(5, 2))
    leaving_out = [(shifts.sum(0) - s) / 4 for s in shifts]
    matrices = [np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) for x, y in leaving_out]
    expected = np.sqrt((shifts.var(0, ddof=1) / 5).sum())
    assert jackknife_px(matrices, SIZE) == pytest.approx(expected)


def test_levels_halve_the_frame_and_keep_pixel_centers():
    assert level_sizes((480, 640)) == [(120, 160), (240, 320), (480, 640)]
    assert level_sizes((112, 112)) == [(112, 112)]
    assert level_sizes((1080, 1920))[-1] == (450, 800)
    for size, at in [((480, 640), (240, 320)), ((101, 131), (50, 66))]:
        up = centered_to_pixels(size) @ np.linalg.inv(centered_to_pixels(size, at))
        # The outer corners of the frame stay its outer corners.
        ends = up @ np.array([[-0.5, -0.5, 1], [at[1] - 0.5, at[0] - 0.5, 1]]).T
        np.testing.assert_allclose(ends[:2].T, [[-0.5, -0.5], [size[1] - 0.5, size[0] - 0.5]])


def test_a_step_raises_the_score():
    samples = two_views(np.eye(3))
    gray = [[getattr(s, n)[..., 0] for s in samples] for n in ("x", "x")]
    level = PyramidLevel(*gray, SIZE, SIZE)
    pairs = np.arange(4)
    start = np.eye(3)
    start.flat[:8] += 0.004 * np.random.default_rng(1).normal(size=8)
    equations = normal_equations(level, start, pairs)
    increment = np.eye(3)
    increment.flat[:8] += np.linalg.solve(equations.system, equations.right)
    after = start @ increment
    pixels = centered_to_pixels(SIZE)
    in_pixels = [pixels @ m @ np.linalg.inv(pixels) for m in (start, after)]
    assert mean_distance(in_pixels[1], np.eye(3)) < 0.3 * mean_distance(in_pixels[0], np.eye(3))
    score = normal_equations(level, after, pairs).score
    assert score > equations.score
    assert level.scores(after, pairs).mean() == pytest.approx(score)


def test_the_preview_shows_that_edges_coincide():
    samples = two_views(CASES["similarity"])
    estimate = estimate_alignment(samples, AlignOptions(model="similarity"))
    picture = draw_preview(samples, estimate)
    h, w = SIZE
    assert (picture.dtype, picture.shape) == (np.uint8, (2 * h, 2 * w + 4, 3))

    def saturation(part):
        return float(np.abs(part[..., 0].astype(float) - part[..., 1]).mean())

    assert saturation(picture[:, w + 4 :]) < 0.8 * saturation(picture[:, :w])
    np.testing.assert_array_equal(picture[..., 1], picture[..., 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "size", "right", "down", "limit_px"),
    [
        ("vif", (480, 640), 17, -12, 1.5),  # of three pyramid levels
        ("mef", (240, 320), 8.5, -6, 0.15),
        ("mff", (240, 320), 8.5, -6, 0.15),
    ],
    ids=["vif", "mef", "mff"],
)
def test_displaced_real_pairs_are_aligned(task, size, right, down, limit_px, val_pairs):
    """Relative to the registration of the data set, which RoadScene has to about a pixel."""
    matrix = turned(2.6, 0.96, right, down, size)
    samples = []
    for pair in find_pairs(val_pairs / task)[:4]:
        x, y = (resize_frame(read_frame(path), size) for path in (pair.x, pair.y))
        back = np.linalg.inv(matrix)
        y = cv2.warpPerspective(
            y,
            back,
            size[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        samples.append(SamplePair(pair.name, x, y))
    found = estimate_alignment(samples).alignment
    assert mean_distance(found.matrix, matrix, size) < limit_px
    assert found.score_after > 2 * found.score_before
