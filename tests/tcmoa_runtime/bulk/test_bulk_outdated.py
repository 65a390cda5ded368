"""Results that are older than a source, pairs that failed before, and sources on several file systems."""

import io
import itertools
import json
import os
import tarfile

import pyarrow
import pytest
from pyarrow import parquet

from bulk_pieces import fuse_small as fuse
from bulk_pieces import images_in, plain_results, small_bundle, write_archive
from object_store import object_store
from tcmoa_runtime.bulk import pair_columns, passes, worker
from tcmoa_runtime.bulk import run as bulk_run
from tcmoa_runtime.bulk.file_systems import open_storage
from tcmoa_runtime.bulk.record import RECORD_NAME
from tcmoa_runtime.cli import run
from tcmoa_runtime.errors import BundleError

pytestmark = pytest.mark.usefixtures("in_process")

NAMES = ["pair000", "pair001", "pair002"]
BEFORE = 1_700_000_000
"""Time of files in the tests, in seconds; those that are written now are newer."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """By name of a pair: the bytes of x and y, and of what the plain Fuser makes of them."""
    folder = tmp_path_factory.mktemp("pictures")
    write_archive(folder, 4)
    fused = plain_results(folder, [*NAMES, "pair003"], small_bundle())
    return {
        name: (*((folder / source / f"{name}.png").read_bytes() for source in "xy"), data)
        for name, data in fused.items()
    }


@pytest.fixture
def archive(pictures, tmp_path):
    """A folder with x/ and y/, whose files are old."""
    for source in "xy":
        (tmp_path / source).mkdir()
    for name in NAMES:
        replace_pair(tmp_path, name, pictures[name])
        age(*(tmp_path / source / f"{name}.png" for source in "xy"))
    return tmp_path


def replace_pair(folder, name, picture):
    for source, data in zip("xy", picture[:2], strict=True):
        (folder / source / f"{name}.png").write_bytes(data)


def age(*paths, seconds=0):
    for path in paths:
        os.utime(path, (BEFORE + seconds, BEFORE + seconds))


def counts(summary):
    return summary.num_fused, summary.num_skipped, summary.num_outdated, len(summary.failures)


def write_table(path, pictures, names=NAMES, made_of=None):
    made_of = made_of or {}
    pairs = [pictures[made_of.get(name, name)] for name in names]
    x, y = ([pair[side] for pair in pairs] for side in (0, 1))
    parquet.write_table(pyarrow.table({"x": x, "y": y, "name": names}), path)


def write_tar(path, pictures, names=NAMES, made_of=None):
    made_of = made_of or {}
    with tarfile.open(path, "w") as opened:
        for name in names:
            for source, data in zip("xy", pictures[made_of.get(name, name)], strict=False):
                member = tarfile.TarInfo(f"{name}.{source}.png")
                member.size = len(data)
                opened.addfile(member, io.BytesIO(data))


def results_in(out, *, newest=False):
    """Return the images in all Parquet and tar files of a folder; none may be there twice, unless the newest counts."""
    found = []
    for path in sorted(out.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
            found += zip(table["name"].to_pylist(), table["fused"].to_pylist(), strict=True)
        elif path.suffix == ".tar":
            with tarfile.open(path) as opened:
                found += [(m.name.removesuffix(".png"), opened.extractfile(m).read()) for m in opened]
    assert newest or len(dict(found)) == len(found)
    return dict(found)


def stored_in(out, *, newest=False):
    """Return the images in a folder, however they are stored."""
    return images_in(out) | results_in(out, newest=newest)


class TestImageFiles:
    def test_a_changed_source_is_counted_and_with_update_fused_again(self, archive, pictures, capsys):
        out = archive / "out"
        sources = archive / "x", archive / "y"
        assert counts(fuse(*sources, out)) == (3, 0, 0, 0)
        age(*out.glob("*.png"), seconds=1)
        assert counts(fuse(*sources, out)) == (0, 3, 0, 0)
        (archive / "y" / "pair001.png").write_bytes(pictures["pair003"][1])
        assert counts(fuse(*sources, out)) == (0, 3, 1, 0)
        assert images_in(out)["pair001"] == pictures["pair001"][2]
        command = [
            "bulk",
            small_bundle(),
            *map(str, sources),
            "-o",
            str(out),
            "--json",
            "--backend",
            "onnxruntime",
        ]
        assert run(command) == 0
        captured = capsys.readouterr()
        assert captured.err == (
            "tcmoa: warning: 1 result is older than a source of its pair; --update fuses it again\n"
        )
        summary = json.loads(captured.out)
        assert [summary[key] for key in ("fused", "skipped", "outdated")] == [0, 3, 1]
        replace_pair(archive, "pair001", pictures["pair003"])
        replace_pair(archive, "pair002", pictures["pair003"])
        assert run(command) == 0
        assert capsys.readouterr().err == (
            "tcmoa: warning: 2 results are older than a source of their pairs; --update fuses them again\n"
        )
        untouched = (out / "pair000.png").stat().st_mtime_ns
        assert run([*command, "--update"]) == 0
        captured = capsys.readouterr()
        summary = json.loads(captured.out)
        assert [summary[key] for key in ("fused", "skipped", "outdated")] == [2, 1, 0]
        assert "older" not in captured.err
        new = pictures["pair003"][2]
        assert images_in(out) == {"pair000": pictures["pair000"][2], "pair001": new, "pair002": new}
        assert (out / "pair000.png").stat().st_mtime_ns == untouched
        assert counts(fuse(*sources, out, update=True)) == (0, 3, 0, 0)

    def test_sources_of_a_csv_file_are_compared_too(self, archive, pictures):
        table, out = archive / "pairs.csv", archive / "out"
        table.write_text("".join(f"x/{name}.png,y/{name}.png\n" for name in NAMES))
        assert counts(fuse(table, None, out)) == (3, 0, 0, 0)
        age(*out.glob("*.png"), seconds=1)
        replace_pair(archive, "pair002", pictures["pair003"])
        assert counts(fuse(table, None, out)) == (0, 3, 1, 0)
        assert counts(fuse(table, None, out, update=True)) == (1, 2, 0, 0)
        assert images_in(out)["pair002"] == pictures["pair003"][2]

    def test_pairs_that_failed_are_tried_again_and_the_table_says_what_is_left(self, archive, pictures):
        out, sources = archive / "out", (archive / "x", archive / "y")

        def failed():
            return [line.partition(",")[0] for line in (out / "_errors.csv").read_text().splitlines()[1:]]

        for name in NAMES[:2]:
            (archive / "x" / f"{name}.png").write_bytes(b"")
        (archive / "y" / "alone.png").write_bytes(b"")
        assert counts(fuse(*sources, out)) == (1, 0, 0, 3)
        assert failed() == ["alone", *NAMES[:2]]
        replace_pair(archive, NAMES[0], pictures[NAMES[0]])
        assert counts(fuse(*sources, out)) == (1, 1, 0, 2)
        assert failed() == ["alone", NAMES[1]]
        (archive / "y" / "alone.png").unlink()
        replace_pair(archive, NAMES[1], pictures[NAMES[1]])
        assert counts(fuse(*sources, out)) == (1, 2, 0, 0)
        assert not (out / "_errors.csv").exists()

    @pytest.mark.parametrize("container", ["parquet", "webdataset"])
    def test_results_in_files_with_many_are_replaced_pair_by_pair(
        self, archive, pictures, container, monkeypatch
    ):
        monkeypatch.setattr(pair_columns, "_SLICES_PER_ACTOR", 1)
        monkeypatch.setattr(pair_columns, "_FIRST_SLICES", ())
        out, sources = archive / "out", (archive / "x", archive / "y")
        changed = NAMES[:1] if container == "parquet" else NAMES[:2]
        assert counts(fuse(*sources, out, container=container, actors=1)) == (3, 0, 0, 0)
        age(*out.iterdir(), seconds=1)
        for name in changed:
            replace_pair(archive, name, pictures["pair003"])
        for source in sources:
            (source / f"{NAMES[2]}.png").unlink()
        update = {"container": container, "update": True, "actors": 1}
        assert counts(fuse(*sources, out, container=container)) == (0, 2, len(changed), 0)
        assert counts(fuse(*sources, out, **update)) == (len(changed), 2 - len(changed), 0, 0)
        expected = {name: pictures["pair003" if name in changed else name][2] for name in NAMES}
        assert results_in(out) == expected
        assert counts(fuse(*sources, out, **update)) == (0, 2, 0, 0)
        replace_pair(archive, NAMES[2], pictures["pair003"])  # its result was written again, and is no newer
        assert counts(fuse(*sources, out, container=container)) == (0, 3, 1, 0)
        for name in NAMES[:2]:
            replace_pair(archive, name, pictures[name])
        assert counts(fuse(*sources, out, **update)) == (3, 0, 0, 0)
        expected = {name: pictures[name][2] for name in NAMES[:2]} | {NAMES[2]: pictures["pair003"][2]}
        assert results_in(out) == expected
        assert len([path for path in out.iterdir() if path.suffix in (".parquet", ".tar")]) == 1

    @pytest.mark.parametrize("container", ["parquet", "webdataset"])
    def test_results_stay_if_the_bundle_cannot_be_loaded(self, archive, pictures, container):
        out, sources = archive / "out", (archive / "x", archive / "y")
        fuse(*sources, out, container=container)
        age(*out.iterdir(), seconds=1)
        replace_pair(archive, NAMES[0], pictures["pair003"])
        with pytest.raises(BundleError, match="has no engine"):
            fuse(*sources, out, container=container, update=True, backend="tensorrt")
        assert stored_in(out) == {name: pictures[name][2] for name in NAMES}

    @pytest.mark.parametrize(
        ("container", "others"),
        [("files", NAMES[1:]), ("parquet", []), ("parquet", NAMES[1:]), ("webdataset", NAMES[1:])],
    )
    def test_a_changed_source_that_cannot_be_fused_leaves_its_old_result_and_a_row(
        self, archive, pictures, container, others
    ):
        out, sources = archive / "out", (archive / "x", archive / "y")
        fuse(*sources, out, container=container)
        age(*out.iterdir(), seconds=1)
        (archive / "x" / f"{NAMES[0]}.png").write_bytes(b"")
        for name in others:
            replace_pair(archive, name, pictures["pair003"])
        for fused in (len(others), 0):
            found = fuse(*sources, out, container=container, update=True)
            assert counts(found) == (fused, 2 - fused, 0, 1)
            assert [failure.name for failure in found.failures] == NAMES[:1]
            expected = {name: pictures["pair003" if name in others else name][2] for name in NAMES}
            assert stored_in(out) == expected
        assert counts(fuse(*sources, out, container=container)) == (0, 3, 1, 0)
        assert not (out / "_errors.csv").exists()
        replace_pair(archive, NAMES[0], pictures["pair003"])
        assert counts(fuse(*sources, out, container=container, update=True)) == (1, 2, 0, 0)
        assert stored_in(out) == expected | {NAMES[0]: pictures["pair003"][2]}

    @pytest.mark.parametrize(
        ("container", "num_units"), [("files", 1), ("parquet", 0), ("parquet", 1), ("webdataset", 3)]
    )
    def test_a_run_that_is_stopped_leaves_a_result_of_each_pair_and_the_next_one_each_once(
        self, archive, pictures, container, num_units, monkeypatch
    ):
        monkeypatch.setattr(pair_columns, "_FIRST_SLICES", ())
        out, sources = archive / "out", (archive / "x", archive / "y")
        with monkeypatch.context() as patch:
            patch.setattr(pair_columns, "_SLICES_PER_ACTOR", 1)  # all pairs are one slice
            fuse(*sources, out, container=container, actors=1)
        age(*out.iterdir(), seconds=1)
        for name in NAMES:
            replace_pair(archive, name, pictures["pair003"])
        in_one_pass = bulk_run.run_passes

        def stops(units, settings, pool):
            yield from itertools.islice(in_one_pass(units, settings, pool), num_units)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(bulk_run, "run_passes", stops)
            with pytest.raises(KeyboardInterrupt):
                fuse(*sources, out, container=container, update=True, actors=1)
        new = pictures["pair003"][2]
        found = stored_in(out, newest=True)
        assert list(found.values()).count(new) == num_units
        assert set(found) == set(NAMES)
        assert counts(fuse(*sources, out, container=container)) == (0, 3, 3 - num_units, 0)
        assert counts(fuse(*sources, out, container=container, update=True)) == (
            3 - num_units,
            num_units,
            0,
            0,
        )
        assert stored_in(out) == dict.fromkeys(NAMES, new)


@pytest.mark.parametrize(("write", "suffix"), [(write_table, "parquet"), (write_tar, "tar")])
class TestFilesOfManyPairs:
    def test_results_in_such_files_are_compared_with_the_file_of_their_sources(
        self, pictures, tmp_path, write, suffix
    ):
        source, out = tmp_path / f"in~1.{suffix}", tmp_path / "out"
        write(source, pictures, NAMES[:2])
        age(source)
        assert counts(fuse(source, None, out)) == (2, 0, 0, 0)
        age(*out.glob(f"*.{suffix}"), seconds=1)
        assert counts(fuse(source, None, out)) == (0, 2, 0, 0)
        write(source, pictures, NAMES, {NAMES[0]: "pair003"})
        for fused, skipped in ((1, 2), (0, 3)):  # what is fused now does not make the others look new
            assert counts(fuse(source, None, out)) == (fused, skipped, 2, 0)
        assert results_in(out) == {name: pictures[name][2] for name in NAMES}
        assert counts(fuse(source, None, out, update=True)) == (2, 1, 0, 0)
        assert results_in(out) == {name: pictures[name][2] for name in NAMES} | {
            NAMES[0]: pictures["pair003"][2]
        }
        assert counts(fuse(source, None, out, update=True)) == (0, 3, 0, 0)

    def test_results_of_rows_that_are_gone_stay(self, pictures, tmp_path, write, suffix):
        source, out = tmp_path / f"in.{suffix}", tmp_path / "out"
        write(source, pictures)
        age(source)
        fuse(source, None, out)
        age(*out.glob(f"*.{suffix}"), seconds=1)
        write(source, pictures, NAMES[:2], dict.fromkeys(NAMES, "pair003"))
        assert counts(fuse(source, None, out)) == (0, 2, 2, 0)
        assert counts(fuse(source, None, out, update=True)) == (2, 0, 0, 0)
        new = pictures["pair003"][2]
        assert results_in(out) == dict.fromkeys(NAMES[:2], new) | {NAMES[2]: pictures[NAMES[2]][2]}
        assert counts(fuse(source, None, out, update=True)) == (0, 2, 0, 0)
        write(source, pictures)
        assert counts(fuse(source, None, out, update=True)) == (3, 0, 0, 0)
        assert results_in(out) == {name: pictures[name][2] for name in NAMES}

    @pytest.mark.parametrize("others", [[], NAMES[1:]])
    def test_a_row_that_cannot_be_fused_leaves_its_old_result(
        self, pictures, tmp_path, write, suffix, others
    ):
        source, out = tmp_path / f"in.{suffix}", tmp_path / "out"
        write(source, pictures)
        age(source)
        fuse(source, None, out)
        age(*out.glob(f"*.{suffix}"), seconds=1)
        damaged = pictures | {"damaged": (b"", b"")}
        write(source, damaged, NAMES, {name: "pair003" if name in others else "damaged" for name in NAMES})
        expected = {name: pictures["pair003" if name in others else name][2] for name in NAMES}
        for fused in (len(others), 0):
            assert counts(fuse(source, None, out, update=True)) == (
                fused,
                len(others) - fused,
                0,
                3 - len(others),
            )
            assert results_in(out) == expected
        assert counts(fuse(source, None, out)) == (0, 3, 3 - len(others), 0)

    def test_a_source_that_cannot_be_read_leaves_its_results(self, pictures, tmp_path, write, suffix):
        sources, out = tmp_path / "in", tmp_path / "out"
        sources.mkdir()
        for name in "ab":
            write(
                sources / f"{name}.{suffix}",
                pictures,
                [f"{name}-{pair}" for pair in NAMES],
                {f"{name}-{pair}": pair for pair in NAMES},
            )
        age(*sources.iterdir())
        assert counts(fuse(sources, None, out)) == (6, 0, 0, 0)
        before = results_in(out)
        age(*out.glob(f"*.{suffix}"), seconds=1)
        data = (sources / f"b.{suffix}").read_bytes()
        (sources / f"b.{suffix}").write_bytes(data[: data.index(b"IEND")])
        for num_a in (3, 0):
            if num_a:
                (sources / f"a.{suffix}").touch()
            found = fuse(sources, None, out, update=True)
            assert counts(found) == (num_a, 3 - num_a, 0, 1)
            assert str(found.failures[0].error).startswith(f"{sources}/b.{suffix}: not a ")
            assert results_in(out) == before

    def test_image_files_are_compared_each(self, pictures, tmp_path, write, suffix):
        source, out = tmp_path / f"in.{suffix}", tmp_path / "out"
        write(source, pictures)
        age(source)
        fuse(source, None, out, container="files")
        write(source, pictures, made_of={NAMES[0]: "pair003"})
        age(source, seconds=10)
        age(*out.glob("*.png"), seconds=1)
        age(out / f"{NAMES[1]}.png", seconds=10)
        assert counts(fuse(source, None, out, container="files")) == (0, 3, 2, 0)
        assert counts(fuse(source, None, out, container="files", update=True)) == (2, 1, 0, 0)
        assert images_in(out)[NAMES[0]] == pictures["pair003"][2]


@pytest.mark.parametrize("container", ["webdataset", "files"])
def test_a_tar_file_that_ends_early_gives_its_first_results_and_leaves_the_others(
    pictures, tmp_path, container
):
    source, out = tmp_path / "in.tar", tmp_path / "out"
    write_tar(source, pictures)
    age(source)
    fuse(source, None, out, container=container)
    age(*out.iterdir(), seconds=1)
    write_tar(source, pictures, NAMES, {NAMES[0]: "pair003"})
    with tarfile.open(source) as opened:
        middle = opened.getmember(f"{NAMES[1]}.y.png").offset_data + 1
    source.write_bytes(source.read_bytes()[:middle])
    found = fuse(source, None, out, container=container, update=True)
    assert (found.num_fused, found.num_skipped) == (1, 0)
    assert str(found.failures[-1].error).startswith(f"{source}: not a readable tar file: ")
    expected = {name: pictures[name][2] for name in NAMES} | {NAMES[0]: pictures["pair003"][2]}
    assert stored_in(out) == expected


def test_rows_that_move_to_another_row_group_have_one_result_each(pictures, tmp_path):
    source, out = tmp_path / "in.parquet", tmp_path / "out"

    def write_groups(names, made_of):
        x, y = ([pictures[name][side] for name in made_of] for side in (0, 1))
        table = pyarrow.table({"x": x, "y": y, "name": names})
        parquet.write_table(table, source, row_group_size=2)

    write_groups(["a", "b", "c", "twice", "d", "twice"], [*NAMES, *NAMES])
    age(source)
    assert counts(fuse(source, None, out)) == (6, 0, 0, 0)
    age(*out.glob("*.parquet"), seconds=1)
    made_of = [NAMES[0], NAMES[1], NAMES[2], "pair003", NAMES[1], "pair003"]
    write_groups(["c", "d", "a", "twice", "b", "twice"], made_of)
    assert counts(fuse(source, None, out, update=True)) == (6, 0, 0, 0)
    found = [row for path in sorted(out.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    expected = zip(["c", "d", "a", "twice", "b", "twice"], made_of, strict=True)
    assert sorted((row["name"], row["fused"]) for row in found) == sorted(
        (name, pictures[made][2]) for name, made in expected
    )
    assert counts(fuse(source, None, out, update=True)) == (0, 6, 0, 0)


@pytest.mark.parametrize(
    ("kind", "is_stored"),
    [("parquet of images", False), ("parquet of images", True), ("parquet", False), ("tar", True)],
)
def test_results_that_are_updated_after_a_process_died_are_there_once(
    archive, pictures, monkeypatch, kind, is_stored
):
    out = archive / "out"
    if kind == "parquet of images":
        source, options = (archive / "x", archive / "y"), {"container": "parquet", "actors": 1}
        monkeypatch.setattr(pair_columns, "_SLICES_PER_ACTOR", 1)
        monkeypatch.setattr(pair_columns, "_FIRST_SLICES", ())
    else:
        source, options = (archive / f"in.{kind}", None), {}
        write = write_table if kind == "parquet" else write_tar
        write(source[0], pictures)
        age(source[0])
    fuse(*source, out, **options)
    age(*out.iterdir(), seconds=1)
    if source[1] is None:
        write(
            source[0], pictures | {"damaged": (b"", b"")}, NAMES, {NAMES[0]: "pair003", NAMES[1]: "damaged"}
        )
    else:
        for name in (NAMES[0], NAMES[2]):
            replace_pair(archive, name, pictures["pair003" if name == NAMES[0] else name])
        (archive / "x" / f"{NAMES[1]}.png").write_bytes(b"")
    lost = []

    def loses_the_first(units, settings, pool):
        actor = worker.BulkWorker(settings)
        for index, unit in enumerate(units):
            if lost or is_stored:
                result = actor.fuse(unit)
            if lost:
                yield index, result
            lost.append(unit)

    with monkeypatch.context() as patch:
        patch.setattr(passes, "_run_pass", loses_the_first)
        patch.setattr(bulk_run, "run_passes", passes.run_passes)
        found = fuse(*source, out, update=True, **options)
    assert len(lost) == 4  # the unit, and its pairs one by one
    assert (len(found.failures), found.num_fused + found.num_skipped, found.num_outdated) == (1, 2, 0)
    expected = {name: pictures[name][2] for name in NAMES} | {NAMES[0]: pictures["pair003"][2]}
    assert results_in(out) == expected
    assert counts(fuse(*source, out, **options)) == (0, 3, 1, 0)
    assert counts(fuse(*source, out, update=True, **options)) == (0, 2, 0, 1)
    assert results_in(out) == expected


class TestFileSystems:
    def test_x_y_and_the_results_may_be_on_three(self, archive, pictures):
        memory, _ = open_storage("memory://bulk/out")
        with object_store() as store:
            for name in NAMES:
                store.objects[f"archive/y/{name}.png"] = pictures[name][1]
            (archive / "x" / "alone.png").write_bytes(b"")
            store.objects["archive/y/alone2.png"] = b""
            sources = archive / "x", store.uri("archive/y")
            assert counts(fuse(*sources, "memory://bulk/out")) == (3, 0, 0, 2)
            made = {
                file.name.removesuffix(".png"): memory.read(f"/bulk/out/{file.name}")
                for file in memory.list_files("/bulk/out")
                if file.name.endswith(".png")
            }
            assert made == {name: pictures[name][2] for name in NAMES}
            errors = memory.read("/bulk/out/_errors.csv").decode().splitlines()
            assert errors[1].startswith(f'alone,{archive}/x/alone.png,,{archive}/x/alone.png,"no partner; ')
            assert errors[2].startswith(
                'alone2,,s3://archive/y/alone2.png,s3://archive/y/alone2.png,"no partner'
            )
            store.times["archive/y/pair001.png"] = 4_000_000_000
            assert counts(fuse(*sources, "memory://bulk/out")) == (0, 3, 1, 2)
            assert counts(fuse(sources[1], sources[0], archive / "out")) == (3, 0, 0, 2)  # y on this disk

    def test_times_of_objects_come_from_listings(self, archive, pictures):
        with object_store() as store:
            for name in NAMES:
                for source, data in zip("xy", pictures[name][:2], strict=True):
                    store.objects[f"archive/{source}/{name}.png"] = data
            x, y, out = (store.uri(f"archive/{part}") for part in ("x", "y", "out"))
            assert counts(fuse(x, y, out)) == (3, 0, 0, 0)
            store.times["archive/x/pair001.png"] = 1_800_000_000
            store.requests.clear()
            assert counts(fuse(x, y, out)) == (0, 3, 1, 0)
            assert not [path for _, path in store.requests if path.endswith(".png")]
            replacement = pictures["pair003"]
            store.objects |= {
                f"archive/{s}/pair001.png": data for s, data in zip("xy", replacement, strict=False)
            }
            assert counts(fuse(x, y, out, update=True)) == (1, 2, 0, 0)
            assert store.objects["archive/out/pair001.png"] == replacement[2]

    def test_results_in_tables_in_a_store_are_replaced_by_their_times(self, archive, pictures, monkeypatch):
        monkeypatch.setattr(pair_columns, "_SLICES_PER_ACTOR", 1)
        monkeypatch.setattr(pair_columns, "_FIRST_SLICES", ())
        sources = archive / "x", archive / "y"
        with object_store() as store:
            out, options = store.uri("archive/out"), {"container": "parquet", "actors": 1}

            def tables():
                return {path: data for path, data in store.objects.items() if path.endswith(".parquet")}

            fuse(*sources, out, **options)
            (old,) = tables()
            store.times |= dict.fromkeys(store.objects, BEFORE + 1)
            (archive / "x" / f"{NAMES[0]}.png").write_bytes(b"")
            replace_pair(archive, NAMES[1], pictures["pair003"])
            age(*(source / f"{name}.png" for source in sources for name in NAMES[:2]), seconds=2)
            store.times[f"archive/out/{RECORD_NAME}"] = BEFORE + 3
            assert counts(fuse(*sources, out, update=True, **options)) == (1, 1, 0, 1)
            found = [
                (path == old, row["name"], row["fused"])
                for path, data in tables().items()
                for row in parquet.read_table(io.BytesIO(data)).to_pylist()
            ]
            expected = [(True, name, pictures[name][2]) for name in (NAMES[0], NAMES[2])]
            assert sorted(found) == sorted([*expected, (False, NAMES[1], pictures["pair003"][2])])
            assert counts(fuse(*sources, out, **options)) == (0, 3, 1, 0)
