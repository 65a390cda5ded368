"""Networks that were wrapped, in the runtime: without a prompt, and else like a model's bundle."""

import json

import numpy as np
import pytest

from micro_model import frames
from tcmoa_runtime import Fuser
from tcmoa_runtime.alignment import Alignment
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.bundle_write import derive_bundle
from tcmoa_runtime.cli import run
from tcmoa_runtime.errors import InputError, NoPromptError
from tcmoa_runtime.images import read_frame, write_image
from wrapped_pieces import HEIGHT, WIDTH, write_two_layers

NO_PROMPT = "this network has no prompt; expected a bundle of `tcmoa export`."


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    """Path of a bundle of a small wrapped network; read-only."""
    return write_two_layers(tmp_path_factory.mktemp("wrapped") / "two-layers")


@pytest.fixture(scope="module")
def stretched(tmp_path_factory):
    """Path of a bundle of a wrapped network that stretches x by its own extremes; read-only."""
    return write_two_layers(tmp_path_factory.mktemp("wrapped") / "stretched", stretches=1)


@pytest.fixture(scope="module")
def wrapped_fuser(wrapped):
    """Fuser of the small wrapped network, in ONNX Runtime."""
    with Fuser.load(wrapped, "onnxruntime", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def wrapped_pair():
    """x and y, uint8 [H, W, 3], of the small network's size."""
    return tuple(frames(HEIGHT, WIDTH, 2, seed=5))


@pytest.fixture
def images(tmp_path, wrapped_pair):
    """Paths of x.png and y.png."""
    for name, frame in zip("xy", wrapped_pair, strict=True):
        write_image(tmp_path / f"{name}.png", frame)
    return tmp_path / "x.png", tmp_path / "y.png"


def error_of(capsys, *words):
    """Run a command that fails; return its exit code and the line on stderr."""
    code = run([str(word) for word in words])
    return code, capsys.readouterr().err.strip()


def test_frames_of_any_size_are_fused(wrapped_fuser, wrapped_pair):
    fused = wrapped_fuser(*wrapped_pair)
    assert fused.shape == (HEIGHT, WIDTH, 3)
    assert fused.std() > 1
    x, y = frames(70, 90, 2, seed=6)
    assert wrapped_fuser(x, y).shape == (70, 90, 3)
    np.testing.assert_array_equal(
        wrapped_fuser(np.stack([wrapped_pair[0]] * 3), np.stack([wrapped_pair[1]] * 3))[2], fused
    )
    assert (wrapped_fuser.grid, wrapped_fuser.grid_of((70, 90))) == ((0, 0), (0, 0))


def test_tiles_join_to_what_the_network_gives_at_its_own_size(wrapped_fuser, tmp_path):
    x, y = frames(64, 96, 2, seed=7)
    with Fuser.load(
        write_two_layers(tmp_path / "large", height=64, width=96), "onnxruntime", threads=1
    ) as large:
        whole, tiled = large(x, y).astype(int), wrapped_fuser(x, y).astype(int)
    # Two convolutions see two pixels beyond the edge of a tile.
    assert np.mean(np.abs(whole - tiled) > 1) < 0.02


def test_openvino_gives_the_same_picture(wrapped, wrapped_fuser, wrapped_pair):
    pytest.importorskip("openvino")
    with Fuser.load(wrapped, "openvino", threads=1) as fuser:
        difference = np.abs(fuser(*wrapped_pair).astype(int) - wrapped_fuser(*wrapped_pair))
    assert difference.max() <= 1


@pytest.mark.parametrize(
    ("call", "subject"),
    [
        (lambda fuser, pair: fuser(*pair, scale=1.0), "prompt_scale"),
        (lambda fuser, pair: fuser(*pair, shift=np.zeros((5, 7))), "prompt_shift"),
        (lambda fuser, pair: fuser.region(np.ones((HEIGHT, WIDTH)), 1, 0), "mask"),
    ],
)
def test_a_prompt_is_refused_in_python(call, subject, wrapped_fuser, wrapped_pair):
    with pytest.raises(NoPromptError) as raised:
        call(wrapped_fuser, wrapped_pair)
    assert str(raised.value) == f"{subject}: {NO_PROMPT} Leave it out."


def test_the_prompt_output_is_refused_in_python(wrapped_fuser, wrapped_pair):
    with pytest.raises(NoPromptError) as raised:
        wrapped_fuser.with_prompt(*wrapped_pair)
    assert str(raised.value) == f"with_prompt: {NO_PROMPT} Call the fuser itself."


@pytest.mark.parametrize(("flag", "value"), [("--prompt-scale", "1"), ("--prompt-shift", "0.2")])
@pytest.mark.parametrize("command", ["fuse", "stream"])
def test_a_prompt_is_refused_on_the_command_line(command, flag, value, wrapped, images, tmp_path, capsys):
    out = ("-o", tmp_path / "out.png") if command == "fuse" else ("--json",)
    code, error = error_of(capsys, command, wrapped, *images, *out, flag, value, "--backend", "onnxruntime")
    assert (code, error.splitlines()[-1]) == (2, f"tcmoa: error: {flag}: {NO_PROMPT} Leave it out.")
    assert not (tmp_path / "out.png").exists()


def test_a_painted_mask_is_refused_on_the_command_line(wrapped, images, tmp_path, capsys):
    words = ("fuse", wrapped, *images, "-o", tmp_path / "out.png", "--prompt-shift", images[0])
    assert error_of(capsys, *words) == (2, f"tcmoa: error: --prompt-shift: {NO_PROMPT} Leave it out.")


def test_a_prompt_is_not_calibrated(wrapped, images, tmp_path, capsys):
    for path in images:
        path.rename(tmp_path / f"a_{path.name}")
    words = ("calibrate", "prompt", wrapped, "--pairs", tmp_path, "-o", tmp_path / "out")
    code, error = error_of(capsys, *words)
    assert (code, error.splitlines()[-1]) == (
        2,
        f"tcmoa: error: {wrapped}: {NO_PROMPT} Use the bundle of a TC-MoA model.",
    )


def test_images_and_folders_are_fused(wrapped, wrapped_fuser, wrapped_pair, images, tmp_path, capsys):
    assert (
        run(
            [
                "fuse",
                str(wrapped),
                *map(str, images),
                "-o",
                str(tmp_path / "f.png"),
                "--backend",
                "onnxruntime",
            ]
        )
        == 0
    )
    np.testing.assert_array_equal(read_frame(tmp_path / "f.png"), wrapped_fuser(*wrapped_pair))
    for name, path in zip("xy", images, strict=True):
        (tmp_path / name).mkdir()
        path.rename(tmp_path / name / "a.png")
    words = [
        "fuse",
        str(wrapped),
        str(tmp_path / "x"),
        str(tmp_path / "y"),
        "-o",
        str(tmp_path / "fused"),
        "--json",
    ]
    assert run(words) == 0
    assert run(words) == 0  # everything is there already
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["skipped"] == 1


def test_inspect_says_what_is_wrapped(wrapped, stretched, capsys):
    assert run(["inspect", str(wrapped)]) == 0
    text = capsys.readouterr().out
    assert "two-layers, wrapped; license MIT" in text
    assert "range_in 0..1" in text
    assert "start at multiples of 8 pixels" in text
    assert "alpha" not in text
    assert "windowed" not in text
    assert run(["inspect", str(stretched)]) == 0
    assert "1 pictures by their own minimum and maximum" in capsys.readouterr().out


def test_held_extremes_replace_those_of_a_picture(stretched, wrapped_pair):
    with Fuser.load(stretched, "onnxruntime", threads=1) as fuser:
        x, y = wrapped_pair
        dim = (x // 2 + 20).astype(np.uint8)
        fused, own = fuser.with_extremes(dim, y)
        np.testing.assert_array_equal(own, [[dim.min(), dim.max()]])
        np.testing.assert_array_equal(fuser(dim, y), fused)
        np.testing.assert_array_equal(fuser.with_extremes(dim, y, own)[0], fused)
        other, still_own = fuser.with_extremes(dim, y, np.float32([[0, 255]]))
        np.testing.assert_array_equal(still_own, own)
        assert np.abs(other.astype(int) - fused).max() > 2
        for wrong, words in (
            (np.zeros((2, 2)), r"held: shape \[2, 2\]; expected \[1, 2\]"),
            ([[0, np.nan]], "held: holds NaN"),
        ):
            with pytest.raises(InputError, match=words):
                fuser.with_extremes(dim, y, wrong)


def test_gpu_check_leaves_out_fp8(wrapped):
    from tcmoa_runtime.gpu_check.bundles import precisions_for

    bundle = Bundle.open(wrapped)
    assert precisions_for(bundle, ()) == ("fp16", "bf16", "int8")
    assert precisions_for(bundle, ("int8",)) == ("int8",)
    with pytest.raises(InputError) as raised:
        precisions_for(bundle, ("fp16", "fp8"))
    assert str(raised.value) == (
        "precisions: fp8; expected int8, which wrapped networks are calibrated to. Leave it out."
    )


def test_a_wrapped_network_is_aligned(wrapped, wrapped_fuser, wrapped_pair, tmp_path):
    entry = Alignment("y", ((1, 0, 2), (0, 1, 0), (0, 0, 1)), "translation", 0.1, 0.1, 0.2, 4, 0)
    bundle = derive_bundle(Bundle.open(wrapped), tmp_path / "aligned", {"alignment": entry.to_json()})
    x, y = wrapped_pair
    with Fuser.load(bundle.path, "onnxruntime", threads=1) as fuser:
        fused = fuser(x, y)
        np.testing.assert_array_equal(fused, wrapped_fuser(x, fuser.aligned(y, "y")))
    assert not np.array_equal(fused, wrapped_fuser(x, y))


def test_gpu_check_changes_the_sources_of_a_network_without_prompt(wrapped):
    from tcmoa_runtime.gpu_check.inputs import make_inputs
    from tcmoa_runtime.gpu_check.steps import _changed_inputs

    inputs = make_inputs(Bundle.open(wrapped), 0)
    changed, what = _changed_inputs(inputs)
    assert (what, inputs.keys(), changed.keys()) == ("sources", {"x", "y"}, {"x", "y"})
