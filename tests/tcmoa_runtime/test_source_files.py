"""Outputs never overwrite the files that they are made of, however a path is spelled."""

import pytest

from tcmoa_runtime import InputError
from tcmoa_runtime.images import write_image
from tcmoa_runtime.source_files import SourceFiles


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"image")
    return path


SPELLINGS = {
    "the same": lambda source: source,
    "through a folder": lambda source: source.parent / "." / "a" / ".." / source.name,
    "a symbolic link": lambda source: link(source, "symlink_to"),
    "a hard link": lambda source: link(source, "hardlink_to"),
}


def link(source, kind):
    path = source.with_name("link.png")
    getattr(path, kind)(source)
    return path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_source_is_known_however_its_path_is_spelled(spelling, source):
    (source.parent / "a").mkdir()
    target = SPELLINGS[spelling](source)
    with pytest.raises(InputError) as caught:
        SourceFiles([source]).check(target)
    assert (
        str(caught.value)
        == f"{target}: is a source; expected another path for the result. Choose another out."
    )


def test_other_and_new_paths_are_taken(source):
    sources = SourceFiles([source, source.with_name("missing.png"), "a\0b"])
    other = source.with_name("other.png")
    assert sources.check(other) == other
    assert sources.check(source.with_name("missing.png")).name == "missing.png"


@pytest.mark.parametrize(
    ("command", "flag"),
    [("align", "--preview"), ("int8", "--curve"), ("fp8", "--curve"), ("prompt", "--surface")],
)
def test_pictures_of_a_calibration_do_not_replace_a_source(command, flag, tcmoa, vif, pair, tmp_path, tree):
    for name, frame in zip("xy", pair, strict=True):
        write_image(tmp_path / f"a_{name}.png", frame)
    before = tree(tmp_path)
    picture = tmp_path / "a_y.png"
    outcome = tcmoa("calibrate", command, vif, "--pairs", tmp_path, "-o", tmp_path / "new", flag, picture)
    outcome.assert_error(
        2, f"{picture}: is a source; expected another path for the result. Choose another {flag}."
    )
    assert tree(tmp_path) == before
