"""Make the image pairs that the package ships, from photographs in the scikit-image wheel: `make shipped-pairs`.

Focus and exposure pairs imitate a lens and a sensor. The "infrared" images are synthetic: no thermal camera saw them.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from skimage import data

from tcmoa.synthetic_pairs import FloatImage, exposure_pair, focus_pair, synthetic_infrared
from tcmoa_runtime.contract import Task
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.shipped_pairs import PAIRS_FOLDER

PHOTOGRAPHS: Final[dict[Task, tuple[str, ...]]] = {
    "vif": ("astronaut", "rocket"),
    "mef": ("coffee", "rocket"),
    "mff": ("chelsea", "coffee"),
}
"""Photographs of each task; PAIRS_FOLDER/LICENSES.txt states where they are from."""
JPEG_QUALITY: Final = 88
DUSK: Final = 0.6
"""Brightness of the visible image of `vif`: the darker it is, the more the second source adds."""
STOPS: Final = 2.0
"""Distance of the exposures from that of the photograph."""
BLUR_PX: Final = 3.0
"""Sigma of the blur of what is out of focus."""
FOCUS_DEPTH: Final = 0.06
"""Width of the change from sharp to blurred, as a share of the image."""


def photograph(name: str) -> FloatImage:
    """Return a photograph, cut to 4:3 or less height."""
    image = np.asarray(getattr(data, name)(), np.float32) / np.float32(255)
    return image[: image.shape[1] * 3 // 4]


def tilted_focus(height: int, width: int, *, to_right: bool) -> FloatImage:
    """Return a mask [H, W, 1] in 0..1 of what is far away: above the center, or right of it."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    distance = columns / width - 0.5 if to_right else 0.5 - rows / height
    return np.asarray(1 / (1 + np.exp(-distance / FOCUS_DEPTH)), np.float32)[..., None]


def make_pair(task: Task, name: str) -> tuple[FloatImage, FloatImage]:
    """Make a pair from a photograph."""
    photo = photograph(name)
    if task == "vif":
        return np.asarray(photo * DUSK, np.float32), synthetic_infrared(photo)[..., :1]
    if task == "mef":
        return exposure_pair(photo, STOPS)
    return focus_pair(photo, tilted_focus(*photo.shape[:2], to_right=name == "chelsea"), BLUR_PX)


def main() -> None:
    """Write all pairs."""
    for task, names in PHOTOGRAPHS.items():
        folder = PAIRS_FOLDER / task
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            for source, image in zip("xy", make_pair(task, name), strict=True):
                frame = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)[..., ::-1]
                _, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                write_bytes(folder / f"{name}_{source}.jpg", encoded.tobytes())


if __name__ == "__main__":
    main()
