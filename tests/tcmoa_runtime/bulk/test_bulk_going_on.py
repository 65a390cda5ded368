"""What a bulk run leaves when it is stopped, what the next one makes of it, and names that seem to differ."""

import csv
import io
import tarfile
import threading
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from bulk_pieces import counts, images_in, plain_results, small_bundle, write_archive
from bulk_pieces import fuse_small as fuse
from tcmoa_runtime.bulk import pair_columns, pair_jobs, parquet_rows, passes, worker
from tcmoa_runtime.bulk import run as bulk_run
from tcmoa_runtime.bulk.file_systems import open_storage
from tcmoa_runtime.bulk.passes import PoolSize
from tcmoa_runtime.bulk.results import check_name
from tcmoa_runtime.bulk.tar_samples import list_files, read_samples
from tcmoa_runtime.bulk.units import PairSlice
from tcmoa_runtime.bulk.worker import WorkerSettings
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.options.bulk import BulkOptions

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with x/ and y/, the names of its pairs, and what the plain Fuser makes of them."""
    folder = tmp_path_factory.mktemp("archive")
    names = write_archive(folder, 2)
    return folder, names, plain_results(folder, names, small_bundle())


def write_tar(path, folder, keys):
    """Write a tar file with a sample for each key, given with the name of the pair that it is a copy of."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as opened:
        for key, name in keys:
            for source in "xy":
                data = (folder / source / f"{name}.png").read_bytes()
                member = tarfile.TarInfo(f"{key}.{source}.png")
                member.size = len(data)
                opened.addfile(member, io.BytesIO(data))


def write_pairs(path, folder, names, **columns):
    path.parent.mkdir(exist_ok=True)
    sources = {source: [(folder / source / f"{name}.png").read_bytes() for name in names] for source in "xy"}
    parquet.write_table(pyarrow.table(sources | {"name": list(names)} | columns), path)


class TestStopped:
    @pytest.mark.parametrize("ending", [KeyboardInterrupt, TcmoaError])
    def test_results_of_a_first_unit_that_never_ended_are_taken_over(
        self, archive, tmp_path, monkeypatch, ending
    ):
        folder, names, expected = archive
        write_tar(tmp_path / "in.tar", folder, [(name, name) for name in names])
        out = tmp_path / "out"
        in_one_pass = bulk_run.run_passes

        def stops(units, settings, pool):
            for _ in in_one_pass(units, settings, pool):
                raise ending("stopped")  # all is written, and nothing was reported
                yield

        with monkeypatch.context() as patch:
            patch.setattr(bulk_run, "run_passes", stops)
            with pytest.raises(ending):
                fuse(tmp_path / "in.tar", None, out, container="files")
        assert images_in(out) == expected
        assert counts(fuse(tmp_path / "in.tar", None, out, container="files")) == (0, len(names), 0)

    def test_a_run_that_fails_before_any_result_leaves_no_folder(self, archive, tmp_path, monkeypatch):
        folder, _names, _ = archive

        def fails(*_):
            raise TcmoaError("failed")
            yield

        monkeypatch.setattr(bulk_run, "run_passes", fails)
        with pytest.raises(TcmoaError, match=r"^failed"):
            fuse(folder / "x", folder / "y", tmp_path / "new" / "out")
        assert not (tmp_path / "new").exists()

    def test_an_error_of_the_bundle_on_a_node_is_one_line_and_leaves_nothing(
        self, archive, tmp_path, monkeypatch
    ):
        folder, _names, _ = archive
        in_one_pass = bulk_run.run_passes

        def with_another_bundle(units, settings, pool):
            bundle = replace(settings.bundle, sha256="0" * 64)
            return in_one_pass(units, replace(settings, bundle=bundle), pool)

        monkeypatch.setattr(bulk_run, "run_passes", with_another_bundle)
        with pytest.raises(
            InputError, match=rf"^{small_bundle()}: SHA-256 of bundle.json is .* on this node; expected 0000"
        ):
            fuse(folder / "x", folder / "y", tmp_path / "new" / "out")
        assert not (tmp_path / "new").exists()

    def test_files_that_a_killed_process_left_in_folders_of_names_are_removed(self, archive, tmp_path):
        folder, names, expected = archive
        write_tar(tmp_path / "in.tar", folder, [(f"day/{names[0]}", names[0])])
        left = tmp_path / "out" / "day" / ".left.png.0123456789abcdef.partial"
        left.parent.mkdir(parents=True)
        left.touch()
        assert counts(fuse(tmp_path / "in.tar", None, tmp_path / "out", container="files")) == (1, 0, 0)
        assert list(left.parent.iterdir()) == [left.parent / f"{names[0]}.png"]
        assert images_in(left.parent) == {names[0]: expected[names[0]]}

    @pytest.mark.parametrize("container", ["files", "parquet"])
    def test_a_run_that_goes_on_elsewhere_ends_where_another_one_has_begun(
        self, archive, tmp_path, monkeypatch, container
    ):
        folder, names, _expected = archive
        out, in_one_pass = tmp_path / "out", bulk_run.run_passes

        def goes_on(units, settings, pool):
            # Its process was killed, and its actors go on: Ray gives clients 30 s to come back.
            with monkeypatch.context() as patch:
                patch.setattr(bulk_run, "run_passes", in_one_pass)
                assert counts(fuse(folder / "x", folder / "y", out, container=container)) == (2, 0, 0)
            yield from in_one_pass(units, settings, pool)

        monkeypatch.setattr(bulk_run, "run_passes", goes_on)
        with pytest.raises(InputError) as caught:
            fuse(folder / "x", folder / "y", out, container=container)
        assert str(caught.value) == (
            f"{out}: another run has begun to write there; expected one at a time. Let the other one end, or choose "
            "another out."
        )
        monkeypatch.setattr(bulk_run, "run_passes", in_one_pass)
        assert counts(fuse(folder / "x", folder / "y", out, container=container)) == (0, len(names), 0)

    def test_a_run_that_cannot_start_leaves_the_folder_to_the_one_that_writes_there(
        self, archive, tmp_path, monkeypatch
    ):
        folder, _names, _ = archive
        out, in_one_pass = tmp_path / "out", bulk_run.run_passes

        def fails(*_, **__):
            raise TcmoaError("no such cluster")

        def with_another_one(units, settings, pool):
            with monkeypatch.context() as patch:
                patch.setattr(bulk_run, "ray_session", fails)
                with pytest.raises(TcmoaError, match=r"^no such cluster"):
                    fuse(folder / "x", folder / "y", out)
            yield from in_one_pass(units, settings, pool)

        monkeypatch.setattr(bulk_run, "run_passes", with_another_one)
        assert counts(fuse(folder / "x", folder / "y", out)) == (2, 0, 0)

    def test_links_in_the_output_lead_to_results_but_never_to_what_is_removed(self, archive, tmp_path):
        folder, names, _ = archive
        out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
        write_tar(tmp_path / "in.tar", folder, [(f"day/{names[0]}", names[0]), (names[1], names[1])])
        out.mkdir()
        elsewhere.mkdir()
        (out / "day").symlink_to(elsewhere)
        (out / "loop").symlink_to(out)
        (out / "itself").symlink_to("itself")
        assert counts(fuse(tmp_path / "in.tar", None, out, container="files")) == (2, 0, 0)
        assert counts(fuse(tmp_path / "in.tar", None, out, container="files")) == (0, 2, 0)
        (elsewhere / "mine.png").write_bytes(b"mine")
        assert counts(fuse(tmp_path / "in.tar", None, out, container="files", overwrite=True)) == (2, 0, 0)
        assert (elsewhere / "mine.png").read_bytes() == b"mine"


def test_a_run_on_a_full_cluster_says_what_it_waits_for(monkeypatch, caplog):
    for free, lines in ((4.0, []), (1.0, ["1 CPU of the 2 CPUs"])):
        monkeypatch.setattr(bulk_run, "free_cpus", lambda free=free: free)
        bulk_run._warn_without_room(PoolSize(3, 2, 0))
        assert [record.getMessage() for record in caplog.records] == [
            f"the cluster has {line} that a process takes free; the run begins when others end"
            for line in lines
        ]


def test_processes_that_all_die_end_the_run_and_not_only_their_pairs(monkeypatch):
    monkeypatch.setattr(passes, "_run_pass", lambda *_: iter(()))
    units = [PairSlice(f"part{index}", ("a",), ("x",), ("y",)) for index in range(9)]
    with pytest.raises(TcmoaError, match=r"^Ray: the processes of all 9 units ended before a result came; "):
        list(passes.run_passes(units, settings_without_bundle(), PoolSize(2, 1, 0)))
    results = list(passes.run_passes(units[:2], settings_without_bundle(), PoolSize(2, 1, 0)))
    assert [len(result.failures) for _, result in results] == [1, 1]  # pictures that kill their process


def settings_without_bundle():
    return WorkerSettings(None, BulkOptions(), None, ("", ""), "", "files", is_resumed=False, run="")


def test_a_run_without_results_says_so(archive, tmp_path, monkeypatch, caplog):
    folder, _names, _ = archive
    in_one_pass, said = bulk_run.run_passes, threading.Event()
    monkeypatch.setattr(bulk_run, "SILENCE_S", 0.01)
    monkeypatch.setattr(bulk_run._log, "warning", lambda *_, **__: said.set())

    def slow(units, settings, pool):
        assert said.wait(60)
        yield from in_one_pass(units, settings, pool)

    monkeypatch.setattr(bulk_run, "run_passes", slow)
    assert counts(fuse(folder / "x", folder / "y", tmp_path / "out")) == (2, 0, 0)


def test_images_of_a_slice_whose_process_died_are_not_fused_again(archive, tmp_path, monkeypatch):
    folder, names, expected = archive
    monkeypatch.setattr(pair_columns, "_SLICES_PER_ACTOR", 1)  # both pairs are one slice
    monkeypatch.setattr(pair_columns, "_FIRST_SLICES", ())
    in_one_pass, fused, tried = bulk_run.run_passes, [], []
    original = worker.fuse_batch

    def counted(fuser, batch, prompt):
        if len(fused) == 1 and not tried:
            raise RuntimeError("the process dies with the second pair")
        fused.append(batch)
        return original(fuser, batch, prompt)

    def dies_once(units, settings, pool):
        for index, (_, result) in enumerate(in_one_pass(units, settings, pool)):
            if tried:
                yield index, result
            tried.append(result)

    monkeypatch.setattr(worker, "fuse_batch", counted)
    monkeypatch.setattr(passes, "_run_pass", dies_once)
    monkeypatch.setattr(bulk_run, "run_passes", passes.run_passes)
    assert counts(fuse(folder / "x", folder / "y", tmp_path / "out", actors=1)) == (2, 0, 0)
    assert (len(fused), len(tried)) == (2, 3)
    assert images_in(tmp_path / "out") == expected
    assert names == sorted(expected)


@pytest.mark.parametrize("container", ["files", "parquet"])
def test_pairs_of_a_process_that_died_after_it_stored_them_are_counted_as_fused(
    archive, tmp_path, monkeypatch, container
):
    folder, names, _ = archive
    lost = []

    def loses_the_first(units, settings, pool):
        actor = worker.BulkWorker(settings)
        for index, unit in enumerate(units):
            result = actor.fuse(unit)
            if lost:
                yield index, result
            else:
                lost.append(unit)

    monkeypatch.setattr(passes, "_run_pass", loses_the_first)
    monkeypatch.setattr(bulk_run, "run_passes", passes.run_passes)
    for update in (False, True):
        lost.clear()
        out = tmp_path / f"out-{update}"
        found = fuse(folder / "x", folder / "y", out, container=container, update=update, actors=1)
        assert counts(found) == (len(names), 0, 0)
        assert len(lost) == 1


class TestLargeRowGroups:
    def test_a_row_group_of_many_rows_is_cut_into_units(self, tmp_path, archive, monkeypatch):
        folder, names, expected = archive
        monkeypatch.setattr(parquet_rows, "MAX_ROWS", 3)
        monkeypatch.setattr(parquet_rows, "_BATCH_ROWS", 2)
        made = [names[index % 2] for index in range(7)]
        own = [f"own{index}" for index in range(6)] + ["own0"]
        write_pairs(tmp_path / "in.parquet", folder, made, name=own)
        out = tmp_path / "out"
        for done in ((7, 0, 0), (0, 7, 0)):
            assert counts(fuse(tmp_path / "in.parquet", None, out)) == done
        parts = sorted(path.name for path in out.glob("*.parquet"))
        assert parts == [f"in-0000-{start:08}.parquet" for start in (0, 3, 6)]
        tables = [parquet.read_table(out / part) for part in parts]
        assert [table.num_rows for table in tables] == [3, 3, 1]
        assert [name for table in tables for name in table["name"].to_pylist()] == own
        found = [data for table in tables for data in table["fused"].to_pylist()]
        assert found == [expected[name] for name in made]
        summary = fuse(tmp_path / "in.parquet", None, tmp_path / "files", container="files")
        assert counts(summary) == (6, 0, 1)
        assert summary.failures[0].x == f"{tmp_path}/in.parquet, row 6, x"

    def test_units_are_even_and_of_some_hundred_rows(self, tmp_path):
        table = pyarrow.table({"x": ["x.png"] * 1300, "y": ["y.png"] * 1300})
        parquet.write_table(table, tmp_path / "in.parquet", row_group_size=1000)
        storage, path = open_storage(str(tmp_path / "in.parquet"))
        names, units = parquet_rows.list_row_groups(storage, path)
        assert (names, [len(unit) for unit in units]) == (["x", "y"], [250] * 4 + [150] * 2)
        assert [unit.first_row + unit.start for unit in units] == [0, 250, 500, 750, 1000, 1150]
        rows = [row for unit in units for row, _ in parquet_rows.read_rows(storage, unit, ["x"])]
        assert rows == [*range(1000), *range(300)]

    def test_a_file_that_claims_more_rows_than_any_has_is_refused(self, archive, tmp_path, monkeypatch):
        folder, names, _ = archive
        write_pairs(tmp_path / "in.parquet", folder, names)
        monkeypatch.setattr(parquet_rows, "MAX_GROUP_ROWS", 1)
        with pytest.raises(InputError, match=r"in\.parquet: a row group of 2 rows; expected at most 1$"):
            fuse(tmp_path / "in.parquet", None, tmp_path / "out")


class TestNames:
    def test_equal_keys_of_several_tar_files_are_different_images(self, archive, tmp_path):
        folder, names, expected = archive
        for shard, name in zip(("a", "b"), names, strict=True):
            write_tar(tmp_path / "in" / f"{shard}.tar", folder, [("000000", name)])
        out = tmp_path / "out"
        assert counts(fuse(tmp_path / "in", None, out, container="files")) == (2, 0, 0)
        assert [images_in(out / shard) for shard in "ab"] == [{"000000": expected[name]} for name in names]
        assert counts(fuse(tmp_path / "in", None, out, container="files")) == (0, 2, 0)

    @pytest.mark.parametrize("container", ["files", "webdataset"])
    def test_a_key_that_comes_again_in_a_tar_file_is_an_error_in_every_run(
        self, archive, tmp_path, container
    ):
        folder, names, _ = archive
        write_tar(tmp_path / "in.tar", folder, [("a", names[0]), ("b", names[1]), ("a", names[1])])
        for done in ((2, 0, 1), (0, 2, 1)):
            summary = fuse(tmp_path / "in.tar", None, tmp_path / "out", container=container)
            assert counts(summary) == done
            assert str(summary.failures[0].error) == (
                "a: the name of another pair too; expected a name for each"
            )

    def test_files_that_differ_in_the_case_of_their_suffix_do_not_replace_each_others_results(
        self, archive, tmp_path
    ):
        folder, names, expected = archive
        write_pairs(tmp_path / "in" / "a.parquet", folder, names[:1])
        write_pairs(tmp_path / "in" / "a.PARQUET", folder, names[1:])
        summary = fuse(tmp_path / "in", None, tmp_path / "out")
        assert counts(summary) == (1, 0, 1)
        assert str(summary.failures[0].error) == (
            f"{tmp_path}/in/a.parquet: the name of a.PARQUET too, but for its suffix; expected a name for each"
        )
        table = parquet.read_table(tmp_path / "out")
        assert table["fused"].to_pylist() == [expected[names[1]]]

    def test_results_of_one_tar_file_are_not_taken_for_pieces_of_another_ones(self, archive, tmp_path):
        folder, names, expected = archive
        (tmp_path / "in").mkdir()
        for name, of_name in (("a", names[0]), ("a~1", names[1])):
            write_tar(tmp_path / "in" / f"{name}.tar", folder, [("key", of_name)])
        out = tmp_path / "out"
        assert counts(fuse(tmp_path / "in", None, out, container="files")) == (2, 0, 0)
        for done in ((1, 0, 1), (0, 1, 1)):
            summary = fuse(tmp_path / "in", None, tmp_path / "parts")
            assert counts(summary) == done
            assert str(summary.failures[0].error) == (
                f"{tmp_path}/in/a~1.tar: the name of a part of the results of a.tar; expected another one. Rename it, "
                "without the ~."
            )
        assert (tmp_path / "parts" / "a.tar").exists()
        assert images_in(out / "a~1")["key"] == expected[names[1]]
        assert counts(fuse(tmp_path / "in" / "a~1.tar", None, tmp_path / "one")) == (1, 0, 0)

    def test_names_may_begin_with_an_underscore(self, archive, tmp_path):
        folder, names, _ = archive
        write_pairs(tmp_path / "in.parquet", folder, names, name=["_a", "_b/c"])
        out = tmp_path / "out"
        assert counts(fuse(tmp_path / "in.parquet", None, out, container="files")) == (2, 0, 0)
        assert counts(fuse(tmp_path / "in.parquet", None, out, container="files")) == (0, 2, 0)
        with pytest.raises(InputError, match="holds results made with prompt_shift"):
            fuse(tmp_path / "in.parquet", None, out, container="files", prompt_shift=0.25)

    def test_a_name_that_a_table_cannot_hold_is_an_error_of_its_pair(self, archive, tmp_path):
        folder, names, expected = archive
        write_tar(tmp_path / "in.tar", folder, [("caf\udce9", names[0]), ("a", names[1])])
        summary = fuse(tmp_path / "in.tar", None, tmp_path / "out", container="parquet")
        assert counts(summary) == (1, 0, 1)
        assert summary.failures[0].error.problem == (
            "'caf\\udce9'; expected a name in UTF-8, as in every Parquet file"
        )
        assert parquet.read_table(tmp_path / "out")["fused"].to_pylist() == [expected[names[1]]]

    def test_names_of_any_type_are_compared_as_they_are_written(self, archive, tmp_path):
        folder, names, _ = archive
        write_pairs(tmp_path / "in" / "a.parquet", folder, names[:1], name=[1])
        write_pairs(tmp_path / "in" / "b.parquet", folder, names[:1], name=["1"])
        write_pairs(tmp_path / "in" / "c.parquet", folder, names[:1], name=[["list"]])
        summary = fuse(tmp_path / "in", None, tmp_path / "out", container="files")
        assert counts(summary) == (2, 0, 1)
        assert summary.failures[0].name == "1"

    def test_a_name_longer_than_any_file_system_takes_is_refused(self):
        with pytest.raises(
            InputError, match=r"^name: a name of 1999 characters; expected at most 1000 bytes$"
        ):
            check_name("/".join(["n"] * 1000))


def test_the_file_system_of_uris_in_a_table_is_opened_once(archive, tmp_path, monkeypatch):
    folder, names, expected = archive
    opened = []
    original = pair_jobs.open_storage
    monkeypatch.setattr(pair_jobs, "open_storage", lambda uri: opened.append(uri) or original(uri))
    (tmp_path / "a%20b.png").write_bytes((folder / "x" / f"{names[0]}.png").read_bytes())
    (tmp_path / "a b.png").write_bytes((folder / "x" / f"{names[1]}.png").read_bytes())
    x = [*(f"file://{folder}/x/{name}.png" for name in names), f"file://{tmp_path}/a%2520b.png"]
    y = [f"file://{folder}/y/{name}.png" for name in (*names, names[0])]
    parquet.write_table(pyarrow.table({"x": x, "y": y}), tmp_path / "in.parquet")
    assert counts(fuse(tmp_path / "in.parquet", None, tmp_path / "out", container="files")) == (3, 0, 0)
    assert images_in(tmp_path / "out")["in-00000002"] == expected[names[0]]
    assert [uri for uri in opened if uri.startswith("file://")] == [x[0], x[2]]


class TestStrangers:
    def test_secrets_of_uris_in_tables_are_not_written_down(self, archive, tmp_path):
        folder, names, _ = archive
        secret = "http://user:s3cr3t@127.0.0.1:9/x.png?signature=s3cr3t"
        write_pairs(tmp_path / "in.parquet", folder, names[:1], x=[secret.replace("http", "nothing")])
        summary = fuse(tmp_path / "in.parquet", None, tmp_path / "out")
        assert counts(summary) == (0, 0, 1)
        table = (tmp_path / "out" / "_errors.csv").read_text()
        assert "s3cr3t" not in table
        assert (
            next(csv.DictReader(io.StringIO(table)))["x"] == "nothing://***@127.0.0.1:9/x.png?signature=***"
        )

    def test_a_tar_file_that_claims_a_huge_picture_is_refused_before_it_is_unpacked(self, tmp_path):
        member = tarfile.TarInfo("a.x.png")
        member.type, member.size = tarfile.GNUTYPE_SPARSE, 0
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        header[386:410] = b"%011o\0%011o\0" % (0, 0)  # one hole of no bytes
        header[483:495] = b"%011o\0" % (1 << 30)  # of a file of 1 GiB
        header[148:156] = b"        "
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "in.tar").write_bytes(bytes(header) + bytes(1024))
        with (
            (tmp_path / "in.tar").open("rb") as file,
            pytest.raises(InputError, match=r"a\.x\.png is a sparse file; expected its bytes"),
        ):
            list(read_samples(file, "in.tar", ("x", "y")))

    def test_a_header_with_a_size_that_is_no_number_is_an_error_of_the_file(self, tmp_path):
        extended = tarfile.TarInfo.create_pax_global_header({"GNU.sparse.size": "many"})
        member = tarfile.TarInfo("a.x.png").tobuf()
        (tmp_path / "in.tar").write_bytes(extended + member + bytes(1024))
        with (
            (tmp_path / "in.tar").open("rb") as file,
            pytest.raises(InputError, match=r"^in\.tar: not a readable tar file: "),
        ):
            list(read_samples(file, "in.tar", ("x", "y")))

    def test_the_names_in_a_tar_file_are_read_without_its_images(self, tmp_path):
        path = tmp_path / "out.tar"
        with tarfile.open(path, "w") as opened:
            member = tarfile.TarInfo("a.png")
            member.size = 1 << 20
            opened.addfile(member, io.BytesIO(bytes(1 << 20)))

        class Counted(io.FileIO):
            num_bytes = 0

            def read(self, size=-1):
                data = super().read(size)
                self.num_bytes += len(data)
                return data

        with Counted(path) as file:
            assert list_files(file, "out.tar") == {"a.png": None}
            assert file.num_bytes < 1 << 16
