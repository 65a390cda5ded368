"""What bulk fusion reads and writes: folders, tables, Parquet, WebDataset, object stores; and what it refuses."""

import contextlib
import io
import json
import tarfile

import pyarrow
import pytest
from pyarrow import parquet

from bulk_pieces import COUNT, counts, error_rows, images_in, small_bundle, sources_of
from bulk_pieces import fuse_small as fuse
from object_store import object_store
from tcmoa_runtime import Bundle
from tcmoa_runtime.bulk.results import ResultFolder
from tcmoa_runtime.bulk.worker import BulkWorker
from tcmoa_runtime.errors import InputError, TcmoaError


def write_table(folder, names, path, rows_per_group=2, **extra):
    x, y = zip(*(sources_of(folder, name) for name in names), strict=True)
    columns = {"x": list(x), "y": list(y), "name": list(names)} | extra
    parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_per_group)


def write_shard(folder, names, path, skip=()):
    with tarfile.open(path, "w") as archive:
        for name in names:
            for source, data in zip("xy", sources_of(folder, name), strict=True):
                if (name, source) not in skip:
                    member = tarfile.TarInfo(f"{name}.{source}.png")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


@pytest.mark.usefixtures("in_process")
class TestFolders:
    def test_results_are_those_of_the_plain_fuser_and_what_is_there_is_skipped(self, archive, tmp_path):
        folder, names, expected = archive
        out = tmp_path / "new" / "out"
        assert counts(fuse(folder / "x", folder / "y", out)) == (COUNT, 0, 0)
        assert images_in(out) == expected
        (out / f"{names[0]}.png").unlink()
        (out / ".left.png.0123456789abcdef.partial").touch()  # of a process that was killed
        assert counts(fuse(folder / "x", folder / "y", out)) == (1, COUNT - 1, 0)
        assert images_in(out) == expected
        assert not list(out.glob(".*.partial"))
        assert counts(fuse(folder / "x", folder / "y", out)) == (0, COUNT, 0)

    def test_relative_paths_are_those_of_the_program_and_not_of_the_processes_that_fuse(
        self, archive, tmp_path, monkeypatch
    ):
        folder, names, expected = archive
        monkeypatch.chdir(folder)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        original = BulkWorker.fuse

        def fuse_there(self, unit):
            with contextlib.chdir(elsewhere):
                return original(self, unit)

        monkeypatch.setattr(BulkWorker, "fuse", fuse_there)
        out = f"{tmp_path.name}-out"
        summary = fuse("x", "y", out)
        assert (counts(summary), summary.out) == ((COUNT, 0, 0), out)
        assert images_in(folder / out) == expected
        (folder / "pairs.csv").write_text(f"x/{names[0]}.png,y/{names[0]}.png\n")
        assert counts(fuse("pairs.csv", None, f"{out}2")) == (1, 0, 0)

    def test_a_csv_file_patterns_and_one_folder_name_pairs_too(self, archive, tmp_path):
        folder, names, expected = archive
        table = tmp_path / "pairs.csv"
        table.write_text(
            "x,y,name\n" + "".join(f"{folder}/x/{n}.png,{folder}/y/{n}.png,{n}\n" for n in names)
        )
        fuse(table, None, tmp_path / "csv")
        assert images_in(tmp_path / "csv") == expected
        both = tmp_path / "both"
        both.mkdir()
        for name in names[:2]:
            for source, data in zip(("VIS", "IR"), sources_of(folder, name), strict=True):
                (both / f"{source}{name}.png").write_bytes(data)
        fuse(both, None, tmp_path / "one", x_pattern="VIS{id}.png", y_pattern="IR{id}.png")
        assert images_in(tmp_path / "one") == {name: expected[name] for name in names[:2]}

    def test_other_settings_are_refused_unless_everything_is_fused_again(self, archive, tmp_path):
        folder, _names, expected = archive
        out = tmp_path / "out"
        fuse(folder / "x", folder / "y", out)
        shift = Bundle.open(small_bundle()).default_prompt[1]
        with pytest.raises(InputError) as caught:
            fuse(folder / "x", folder / "y", out, prompt_shift=0.25)
        assert str(caught.value) == (
            f"{out}: holds results made with prompt_shift {shift:g} (now 0.25); expected results of one bundle and "
            "prompt. Choose another out, or make them again with overwrite=True."
        )
        with pytest.raises(
            InputError, match=r"made with prompt_scale 1 \(now 2\) and format png \(now jpg\)"
        ):
            fuse(folder / "x", folder / "y", out, format="jpg", prompt_scale=2.0)
        assert counts(fuse(folder / "x", folder / "y", out, prompt_shift=0.25, overwrite=True)) == (
            COUNT,
            0,
            0,
        )
        assert images_in(out) != expected
        assert json.loads((out / ".tcmoa-bulk.json").read_text())["settings"]["prompt_shift"] == 0.25

    def test_overwriting_removes_old_results_first_so_that_a_killed_run_leaves_no_mix(
        self, archive, tmp_path, monkeypatch
    ):
        folder, _names, _expected = archive
        out = tmp_path / "out"
        fuse(folder / "x", folder / "y", out)
        monkeypatch.setattr(
            "tcmoa_runtime.bulk.run.run_passes", lambda *_: iter(())
        )  # killed before any result
        fuse(folder / "x", folder / "y", out, prompt_shift=0.25, overwrite=True)
        assert not images_in(out)

    def test_files_of_others_are_refused_and_never_removed(self, archive, tmp_path):
        folder, *_ = archive
        (tmp_path / "mine.png").write_bytes(b"")
        for overwrite in (False, True):
            with pytest.raises(InputError) as caught:
                fuse(folder / "x", folder / "y", tmp_path, overwrite=overwrite)
            assert str(caught.value) == (
                f"{tmp_path}: holds mine.png, which no run of this command wrote; expected a folder without such "
                "files. Choose another out, or move them away."
            )
        assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]

    def test_sources_in_or_below_the_output_are_refused(self, archive, tmp_path):
        folder, names, _ = archive
        table = tmp_path / "tables" / "in.parquet"
        table.parent.mkdir()
        write_table(folder, names[:1], table)
        csv_file = tmp_path / "pairs.csv"
        csv_file.write_text(f"{folder}/x/{names[0]}.png,{folder}/y/{names[0]}.png\n")
        before = sorted(path for path in folder.rglob("*"))
        for sources, out, where in (
            ((folder / "x", folder / "y"), folder / "x", folder / "x"),
            ((folder / "x", folder / "y"), folder, None),
            ((csv_file, None), folder, None),
            ((table, None), table.parent, table.parent),
            ((table, None), tmp_path, table.parent),
        ):
            with pytest.raises(InputError, match="sources are in it or below it, in ") as caught:
                fuse(*sources, out, overwrite=True)
            assert caught.value.subject == str(out)
            assert where is None or str(where) in str(caught.value)
        assert sorted(path for path in folder.rglob("*")) == before
        assert table.exists()

    def test_an_output_that_cannot_be_written_ends_the_run_in_one_line(self, archive, tmp_path, monkeypatch):
        folder, _names, _ = archive

        out = tmp_path / "out"
        out.mkdir()
        original = ResultFolder.image_path
        monkeypatch.setattr(ResultFolder, "image_path", lambda self, name: original(self, f"no/{name}"))
        (out / "no").touch()
        with pytest.raises(TcmoaError, match=r"no: a file; expected a folder"):
            fuse(folder / "x", folder / "y", out)


@pytest.mark.usefixtures("in_process")
class TestParquet:
    def test_round_trip_and_resume(self, archive, tmp_path):
        folder, names, expected = archive
        (tmp_path / "in").mkdir()
        write_table(folder, names[:3], tmp_path / "in" / "a.parquet")
        write_table(folder, names[3:], tmp_path / "in" / "b.parquet")
        out = tmp_path / "out"
        assert counts(fuse(tmp_path / "in", None, out)) == (COUNT, 0, 0)
        parts = sorted(path.name for path in out.glob("*.parquet"))
        assert parts == ["a-0000.parquet", "a-0001.parquet", "b-0000.parquet", "b-0001.parquet"]
        table = parquet.read_table(out)
        assert dict(zip(table["name"].to_pylist(), table["fused"].to_pylist(), strict=True)) == expected
        (out / "a-0001.parquet").unlink()
        assert counts(fuse(tmp_path / "in", None, out)) == (1, COUNT - 1, 0)
        assert parquet.read_table(out).num_rows == COUNT

    def test_paths_in_columns_other_names_and_results_as_files(self, archive, tmp_path):
        folder, names, expected = archive
        table = {
            "vis": [f"{folder}/x/{n}.png" for n in names[:2]] + ["missing.png", None],
            "ir": [f"file://{folder}/y/{n}.png" for n in names[:2]] + [f"{folder}/y/{names[0]}.png"] * 2,
        }
        parquet.write_table(pyarrow.table(table), tmp_path / "in.parquet")
        out = tmp_path / "out"
        summary = fuse(tmp_path / "in.parquet", None, out, columns=("vis", "ir"), container="files")
        assert counts(summary) == (2, 0, 2)
        assert images_in(out) == {f"in-{row:08}": expected[names[row]] for row in range(2)}
        rows = error_rows((out / "_errors.csv").read_bytes())
        assert rows[0] == [
            "in-00000002",
            str(tmp_path / "missing.png"),
            f"{folder}/y/{names[0]}.png",
            str(tmp_path / "missing.png"),
            "no such image file",
            "",
        ]
        cell = f"{tmp_path / 'in.parquet'}, row 3, vis"
        assert rows[1][1:5] == [
            cell,
            f"{folder}/y/{names[0]}.png",
            cell,
            "nothing; expected the bytes of an image file, or its path",
        ]

    def test_folders_become_parquet_and_their_names_are_skipped(self, archive, tmp_path):
        folder, _names, expected = archive
        out = tmp_path / "out"
        assert counts(fuse(folder / "x", folder / "y", out, container="parquet")) == (COUNT, 0, 0)
        assert counts(fuse(folder / "x", folder / "y", out, container="parquet")) == (0, COUNT, 0)
        table = parquet.read_table(out)
        assert dict(zip(table["name"].to_pylist(), table["fused"].to_pylist(), strict=True)) == expected

    def test_pieces_of_a_unit_whose_process_died_give_no_pair_twice(self, archive, tmp_path, monkeypatch):
        folder, names, _expected = archive
        write_table(folder, names, tmp_path / "in.parquet", rows_per_group=COUNT)
        out = tmp_path / "out"
        from tcmoa_runtime.bulk import passes, run

        in_one_pass = run.run_passes
        died = []

        def dies_once(units, settings, pool):
            for index, unit in enumerate(units):
                ((_, result),) = in_one_pass([unit], settings, pool)  # written, but the first result is lost
                if died:
                    yield index, result
                died.append(unit)

        monkeypatch.setattr(passes, "_run_pass", dies_once)
        monkeypatch.setattr(run, "run_passes", passes.run_passes)
        summary = fuse(tmp_path / "in.parquet", None, out)
        assert (len(died), summary.num_fused + summary.num_skipped) == (1 + COUNT, COUNT)
        table = parquet.read_table(out)
        assert sorted(table["name"].to_pylist()) == names

        (out / "in-0000.parquet").unlink()  # now the pieces are fused by themselves
        died[:] = ["no more"]
        assert counts(fuse(tmp_path / "in.parquet", None, out)) == (COUNT, 0, 0)
        died.clear()
        (out / "in-0000.parquet").rename(out / "in-0000~0.parquet")
        died[:] = ["no more"]
        assert counts(fuse(tmp_path / "in.parquet", None, out)) == (0, COUNT, 0)

    def test_bad_rows_and_names_are_errors_of_their_pairs(self, archive, tmp_path):
        folder, names, _expected = archive
        bad = ["../up", names[1], names[1], ".hidden"]
        write_table(folder, names[:4], tmp_path / "in.parquet", rows_per_group=2, name=bad)
        summary = fuse(tmp_path / "in.parquet", None, tmp_path / "out", container="files")
        assert counts(summary) == (1, 0, 3)
        assert [str(failure.error) for failure in summary.failures] == [
            "name: '../up'; expected the name of a file, without an extension",
            "name: '.hidden'; expected the name of a file, without an extension",
            f"{names[1]}: the name of another pair too; expected a name for each",
        ]
        assert list(images_in(tmp_path / "out")) == [names[1]]


@pytest.mark.usefixtures("in_process")
class TestWebDataset:
    def test_round_trip_and_resume(self, archive, tmp_path):
        folder, names, expected = archive
        (tmp_path / "in").mkdir()
        write_shard(folder, names[:4], tmp_path / "in" / "s0.tar", skip={(names[1], "y")})
        write_shard(folder, names[4:], tmp_path / "in" / "s1.tar")
        out = tmp_path / "out"
        summary = fuse(tmp_path / "in", None, out)
        assert counts(summary) == (COUNT - 1, 0, 1)
        shard = tmp_path / "in" / "s0.tar"
        assert str(summary.failures[0].error) == (
            f"{shard}: {names[1]}: no file {names[1]}.y.EXT; expected one of each source"
        )

        def read():
            found = {}
            for path in out.glob("*.tar"):
                with tarfile.open(path) as opened:
                    found |= {m.name.removesuffix(".png"): opened.extractfile(m).read() for m in opened}
            return found

        assert read() == {name: expected[name] for name in names if name != names[1]}
        (out / "s1.tar").unlink()
        assert counts(fuse(tmp_path / "in", None, out)) == (2, 3, 1)
        write_shard(folder, names[:4], shard)  # mended
        assert counts(fuse(tmp_path / "in", None, out)) == (1, COUNT - 1, 0)
        assert read() == expected
        assert not (out / "_errors.csv").exists()

    def test_sources_have_other_names_by_columns(self, archive, tmp_path):
        folder, names, expected = archive
        with tarfile.open(tmp_path / "in.tar", "w") as opened:
            for source, data in zip(("vis", "ir"), sources_of(folder, names[0]), strict=True):
                member = tarfile.TarInfo(f"a/b.{source}.png")
                member.size = len(data)
                opened.addfile(member, io.BytesIO(data))
        out = tmp_path / "out"
        assert counts(fuse(tmp_path / "in.tar", None, out, columns=("vis", "ir"), container="files")) == (
            1,
            0,
            0,
        )
        assert (out / "a" / "b.png").read_bytes() == expected[names[0]]
        assert counts(fuse(tmp_path / "in.tar", None, out, columns=("vis", "ir"), container="files")) == (
            0,
            1,
            0,
        )

    def test_a_damaged_shard_is_an_error_of_its_own(self, archive, tmp_path):
        folder, names, expected = archive
        (tmp_path / "in").mkdir()
        write_shard(folder, names[:1], tmp_path / "in" / "s0.tar")
        (tmp_path / "in" / "s1.tar").write_bytes(b"no tar" * 200)
        summary = fuse(tmp_path / "in", None, tmp_path / "out", container="files")
        assert counts(summary) == (1, 0, 1)
        assert (
            str(summary.failures[0].error)
            == f"{tmp_path / 'in' / 's1.tar'}: not a readable tar file: invalid header"
        )
        assert images_in(tmp_path / "out" / "s0") == {names[0]: expected[names[0]]}


@pytest.mark.usefixtures("in_process")
class TestObjectStore:
    def test_pairs_come_from_a_store_and_go_there_with_one_put_each(self, archive, tmp_path):
        folder, names, expected = archive
        with object_store() as store:
            for name in names[:3]:
                for source, data in zip("xy", sources_of(folder, name), strict=True):
                    store.objects[f"archive/{source}/{name}.png"] = data
            store.objects["archive/x/bad.png"] = b"no image"
            store.objects["archive/y/bad.png"] = b"no image"
            x, y, out = (store.uri(f"archive/{part}") for part in ("x", "y", "fused"))
            summary = fuse(x, y, out)
            assert counts(summary) == (3, 0, 1)
            assert summary.out == "s3://archive/fused"
            found = {
                key.rpartition("/")[2].removesuffix(".png"): data
                for key, data in store.objects.items()
                if key.startswith("archive/fused/") and key.endswith(".png")
            }
            assert found == {name: expected[name] for name in names[:3]}
            assert all(store.num_puts[f"archive/fused/{name}.png"] == 1 for name in found)
            errors = store.objects["archive/fused/_errors.csv"]
            assert b"SECRET" not in errors
            assert error_rows(errors) == [
                [
                    "bad",
                    "s3://archive/x/bad.png",
                    "s3://archive/y/bad.png",
                    "s3://archive/x/bad.png",
                    "not a readable image; expected PNG, JPEG, TIFF, BMP or WebP",
                    "",
                ]
            ]
            del store.objects[f"archive/fused/{names[0]}.png"]
            assert counts(fuse(x, y, out)) == (1, 2, 1)
            table = io.BytesIO()
            write_table(folder, names[:2], table)
            store.objects["archive/in.parquet"] = table.getvalue()
            assert counts(fuse(store.uri("archive/in.parquet"), None, store.uri("archive/tab"))) == (
                2,
                0,
                0,
            )
            rows = parquet.read_table(io.BytesIO(store.objects["archive/tab/in-0000.parquet"]))
            assert rows["fused"].to_pylist() == [expected[name] for name in names[:2]]
