"""Contact sheets of frames of any size, and the colors of a prompt map."""

import cv2
import numpy as np
import pytest

from micro_model import frames, scrambled
from tcmoa.sample_images import write_contact_sheet
from tcmoa_runtime.demo import prompt_image


def test_prompt_maps_go_from_blue_to_red():
    image = prompt_image(np.array([[0.0, 1.0]], np.float32), 16, 32)
    assert image.shape == (16, 32, 3)
    low, high = image[0, 0].astype(int), image[-1, -1].astype(int)
    assert low[2] > low[0]
    assert high[0] > high[2]
    # Prompts beyond 0..1, which a shift can make, are shown as the ends.
    assert np.array_equal(prompt_image(np.array([[-0.3, 1.7]], np.float32), 16, 32), image)


@pytest.mark.parametrize(
    ("size", "cut"),
    [((60, 90), (112, 112)), ((130, 250), (112, 224)), ((700, 350), (336, 336)), ((120, 999), (112, 336))],
)
def test_frames_are_cut_to_whole_windows(tmp_path, micro, size, cut):
    x, y = frames(*size)[0], frames(*size, seed=1)[0]
    write_contact_sheet(micro, [("vif", x, y)], tmp_path / "sheet.jpg")
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    assert sheet.shape == (cut[0], 5 * 336, 3)
    blank = sheet[:, 5 * cut[1] + 8 :]  # a JPEG blurs the edge
    assert blank.size == 0 or blank.max() < 16
    assert sheet[:, : 5 * cut[1]].std() > 5
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.jpg"]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_restored(tmp_path, training):
    model = scrambled().train(training)
    rows = [(task, *frames(112, 112, 2)) for task in ("vif", "mff")]
    write_contact_sheet(model, rows, tmp_path / "sheet.jpg")
    assert model.training == training
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape[0] == 224
