"""Pairs found in columns are those of `list_pairs`, and are cut into slices that are made when they are needed."""

import os
import random

import numpy as np
import pytest

from tcmoa_runtime.bulk import columns, pair_columns
from tcmoa_runtime.bulk.file_systems import open_storage
from tcmoa_runtime.bulk.listing import SourceFolder, list_pair_columns
from tcmoa_runtime.bulk.pair_columns import PairColumns, PairUnits
from tcmoa_runtime.bulk.storage import DiskStorage
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.pairs import PairPaths, list_pairs

PATTERNS = ("VIS*{id}.png", "IR{id}.png")
FOLDERS = ("{day}/v/{id}.png", "{day}/i-{id}.*")
SAME = [f"{n}.png" for n in ("b", "a.b", "a-b", "a", "ä", "caf\udce9", "B")]


def in_columns(x, y, patterns):
    disk = DiskStorage()
    found, failures = list_pair_columns(SourceFolder(disk, str(x)), SourceFolder(disk, str(y)), *patterns)
    everything = found.slice(0, len(found))
    rows = list(zip(everything.names, everything.xs, everything.ys, strict=True))
    return rows, [(f.name, f.x, f.y, str(f.error)) for f in failures]


def in_objects(x, y, patterns):
    found = list_pairs(x, y, x_pattern=patterns[0], y_pattern=patterns[1])
    error = f"no partner; expected {found.expected}. Add or rename its partner."
    failures = [(name, str(path), "", f"{path}: {error}") for name, path in found.only_x.items()]
    failures += [(name, "", str(path), f"{path}: {error}") for name, path in found.only_y.items()]
    return [(pair.name, str(pair.x), str(pair.y)) for pair in found.pairs], sorted(failures)


def outcome(find, *arguments):
    try:
        return find(*arguments)
    except InputError as error:
        return str(error)


def write(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("x", "y", "patterns"),
    [
        (SAME, SAME, (None, None)),
        (["a.png", "b.JPG", "c.png", ".d.png", "e.txt"], ["a.tif", "b.png", "d.png"], (None, None)),
        (["a_x.png", "a.b_x.png", "c.png"], ["a_y.png", "a.b_y.png", "c.png"], (None, None)),
        (["a_x.png", "b_x.png"], ["a_x.png", "b_x.png"], (None, None)),
        (["a_x.png", "a.png"], ["a.png"], (None, None)),
        (["a.png", "a.jpg"], ["a.png"], (None, None)),
        (["a.png"], ["b.png"], (None, None)),
        (["a.png"], [], (None, None)),
        (["VIS1.png", "VIS-2.png", "VIS3.png"], ["IR1.png", "IR-2.png"], PATTERNS),
        (["VIS1.png", "VISa1.png"], ["IR1.png"], PATTERNS),
        (["VIS1.png"], ["IR{id}.png"], ("VIS{id}.png", "IR{no}.png")),
        (
            ["mon/v/1.png", "mon/v/2.png", "tue/v/1.png"],
            ["mon/i-1.png", "tue/i-1.jpg", "tue/i-3.png"],
            FOLDERS,
        ),
    ],
)
def test_pairs_of_two_folders(tmp_path, x, y, patterns):
    x, y = write(tmp_path / "x", x), write(tmp_path / "y", y)
    assert outcome(in_columns, x, y, patterns) == outcome(in_objects, x, y, patterns)


@pytest.mark.parametrize(
    "names",
    [
        ["b_x.png", "b_y.jpg", "a_x.png", "a_y.png", "c_x.png", "d.png"],
        ["a_x.png", "a_y.png", "a_x.jpg"],
        ["a_x.png"],
        ["a.png"],
    ],
)
def test_pairs_of_one_folder(tmp_path, names):
    folder = write(tmp_path / "xy", names)
    found = outcome(in_columns, folder, folder, (None, None))
    assert found == outcome(in_objects, folder, folder, (None, None))


@pytest.mark.parametrize("seed", range(8))
def test_pairs_of_random_names(tmp_path, seed, monkeypatch):
    monkeypatch.setattr(columns, "_CHUNK_ROWS", 3)
    draw = random.Random(seed)
    letters, suffixes = "ab_-.é", ("_x", "_y", "", "")

    def names(suffix):
        chosen = {
            "".join(draw.choices(letters, k=draw.randint(1, 2))) + draw.choice([suffix, *suffixes])
            for _ in range(draw.randint(1, 12))
        }
        return [f"{name}.png" for name in sorted(chosen)]

    both = names("_x")
    x, y = write(tmp_path / "x", both + names("_x")), write(tmp_path / "y", both + names("_y"))
    assert outcome(in_columns, x, y, (None, None)) == outcome(in_objects, x, y, (None, None))
    assert outcome(in_columns, x, x, (None, None)) == outcome(in_objects, x, x, (None, None))


def test_a_folder_that_is_missing_is_called_as_the_user_does(tmp_path):
    storage, path = open_storage("memory://none/x")
    disk = SourceFolder(DiskStorage(), str(write(tmp_path / "x", ["a.png"])))
    for folders in ((SourceFolder(storage, path), disk), (disk, SourceFolder(storage, path))):
        with pytest.raises(InputError, match=r"^memory:///none/x: no such folder of images$"):
            list_pair_columns(*folders, None, None)
    storage.write(f"{path}/b.png", b"")
    with pytest.raises(
        InputError, match=rf"{disk.path} holds a.png, and memory:///none/x b.png; the nearest"
    ):
        list_pair_columns(disk, SourceFolder(storage, path), None, None)
    storage.delete(f"{path}/b.png")


@pytest.mark.parametrize("patterns", [(None, None), FOLDERS])
def test_links_that_lead_to_themselves_are_no_images_and_no_folders(tmp_path, patterns):
    x = write(tmp_path / "x", ["mon/v/1.png", "a.png"])
    y = write(tmp_path / "y", ["mon/i-1.png", "a.png"])
    for folder in (x, y, x / "mon"):
        (folder / "itself").symlink_to("itself")
    assert outcome(in_columns, x, y, patterns) == outcome(in_objects, x, y, patterns)
    assert len(in_columns(x, y, patterns)[0]) == 1


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError) as caught:
        list(DiskStorage().list_files(str(tmp_path)))
    assert str(caught.value) == f"{tmp_path}: cannot be listed: Permission denied"


def test_folders_of_equal_paths_on_two_file_systems_are_two(tmp_path):
    write(tmp_path / "same", ["a.png"])
    memory, _ = open_storage("memory://same")
    path = str(tmp_path / "same")
    memory.write(f"{path}/a.png", b"")
    pairs, failures = list_pair_columns(
        SourceFolder(DiskStorage(), path), SourceFolder(memory, path), None, None
    )
    assert (len(pairs), failures) == (1, [])


@pytest.mark.parametrize(("count", "actors"), [(0, 1), (1, 4), (9, 1), (1000, 2), (6000, 1)])
def test_slices_are_small_first_and_hold_each_pair_once(count, actors, monkeypatch):
    monkeypatch.setattr(pair_columns, "MAX_SLICES", 128)
    pairs = [PairPaths(f"{n:06}", f"/x/{n:06}.png", f"/y/{n:06}.jpg") for n in range(count)]
    units = PairUnits(PairColumns.from_paths(pairs), actors)
    sizes = [len(unit) for unit in units]
    assert sum(sizes) == count
    assert len(units) == len(sizes)
    assert len(sizes) <= max(128, 64 * actors) + 3 * actors + 1
    if count == 1000:
        assert sizes[:7] == [1, 1, 4, 4, 16, 16, 32]
    if count == 6000:
        assert sizes[3] == 47
        assert units[-1].names[-1] == "005999"
        assert units[20].xs[0] == f"/x/{sum(sizes[:20]):06}.png"
        assert units[20].ys[0] == f"/y/{sum(sizes[:20]):06}.jpg"


def test_selected_pairs_keep_their_files_and_times(tmp_path):
    names = [f"{n}.png" for n in range(5)]
    memory, _ = open_storage("memory://selected")
    for source in "xy":
        for name in names:
            memory.write(f"/selected/{source}/{name}", b"")
    pairs, _ = list_pair_columns(
        SourceFolder(memory, "/selected/x"), SourceFolder(memory, "/selected/y"), None, None
    )
    assert pairs.y.files is pairs.x.files  # names that are equal are in memory once
    some = pairs.select(np.array([True, False, False, True, False]))
    assert some.slice(0, 2).ys == ("/selected/y/0.png", "/selected/y/3.png")
    assert some.y.times.to_pylist() == [pairs.y.times[index].as_py() for index in (0, 3)]
    assert some.y.times.to_pylist() != some.x.times.to_pylist()
    assert os.fspath(some.y.folder) == "/selected/y/"
