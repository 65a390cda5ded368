"""Classical fusion methods to compare a model with, or to teach it: no weights, a fraction of a second.

    from tcmoa_calibration.baselines import BASELINES

    fused = BASELINES["laplacian"].fuse(x, y)

x and y are uint8, RGB [H, W, 3] or gray [H, W] or [H, W, 1], of the same size from 1x1 up. The fused image is uint8,
RGB [H, W, 3] if a source has three channels, else [H, W]. Results are deterministic, in every thread. Swapping x and
y changes only ties of `patches`, which go to x, and ties and small regions of `focus`.

`activity`, `exposure` and `focus` are the best rules known for visible-infrared, multi-exposure and multi-focus pairs.
`fuse_by_activity`, `fuse_by_exposure` and `focus_weight` do the same with float luma. `TEACHERS` contains what a
model can imitate in training, by name.
"""

from tcmoa_calibration.baselines.methods import BASELINES, Baseline
from tcmoa_calibration.baselines.pyramids import fuse_by_activity, fuse_by_exposure
from tcmoa_calibration.baselines.selection import focus_weight
from tcmoa_calibration.baselines.teachers import TEACHERS

__all__ = ["BASELINES", "TEACHERS", "Baseline", "focus_weight", "fuse_by_activity", "fuse_by_exposure"]
