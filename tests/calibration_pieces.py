"""Bundles that are small enough to calibrate in seconds, and pairs made from photographs."""

from engine_pieces import export_unchecked
from micro_model import scrambled
from tcmoa import load_weights
from tcmoa_export.photographs import PHOTOGRAPHS, make_pair
from tcmoa_runtime.images import write_image

SIDE = 112


def export_tiny(out, **options):
    """The trained tiny at 112x112, one window a source that is not compared with the model."""
    return export_unchecked(load_weights("tiny"), out, **{"size": (SIDE, SIDE), **options})


def export_micro(out, **options):
    """A random model of small blocks, whose graphs take milliseconds."""
    return export_unchecked(scrambled(), out, **{"size": (SIDE, SIDE), **options})


def write_pairs(folder, count, task="vif", size=(SIDE, SIDE)):
    """Write `count` different pairs NAME_x.png, NAME_y.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pair = make_pair(task, PHOTOGRAPHS[i % len(PHOTOGRAPHS)], size, i)
        write_image(folder / f"{i:02}_x.png", pair.x)
        write_image(folder / f"{i:02}_y.png", pair.y)
    return folder
