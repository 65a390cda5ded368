"""Bulk fusion on a private Ray: pictures that kill the process which fuses them, and errors that end the run."""

import pytest
import ray

import bulk_pieces
from bulk_pieces import BUNDLE, FragileWorker, bulk_options, images_in, plain_results, write_archive
from tcmoa_runtime.bulk import passes
from tcmoa_runtime.bulk.run import fuse_in_bulk
from tcmoa_runtime.cluster.session import ray_session
from tcmoa_runtime.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def started():
    """A private Ray, which the runs of this module share."""
    ray.cloudpickle.register_pickle_by_value(bulk_pieces)  # which its processes cannot import
    try:
        with ray_session(num_cpus=2, object_store_bytes=80_000_000):
            yield
    finally:
        ray.cloudpickle.unregister_pickle_by_value(bulk_pieces)


def test_a_picture_that_kills_every_process_is_a_row_and_the_others_are_fused(started, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "BulkWorker", FragileWorker)
    names = write_archive(tmp_path, 8)
    for source in "xy":
        for name in ("poison", "once"):
            (tmp_path / source / f"{name}.png").write_bytes((tmp_path / source / "pair000.png").read_bytes())
    monkeypatch.setattr("tcmoa_runtime.bulk.planning._FIRST_SLICES", ())
    monkeypatch.setattr(
        "tcmoa_runtime.bulk.planning._SLICES_PER_ACTOR", 1
    )  # the two share their slices with others
    out = tmp_path / "out"
    summary = fuse_in_bulk(BUNDLE, tmp_path / "x", tmp_path / "y", out, bulk_options())
    assert (summary.num_fused, summary.num_actors) == (9, 2)
    assert images_in(out) == plain_results(tmp_path, [*names, "once"])
    (failure,) = summary.failures
    assert (failure.name, failure.x) == ("poison", str(tmp_path / "x" / "poison.png"))
    assert str(failure.error) == (
        f"{tmp_path / 'x' / 'poison.png'}: the process that fused it ended 3 times; expected it to stay alive. "
        "Look at the file, and at the memory of the nodes."
    )


def test_an_error_of_the_bundle_on_a_node_is_one_line_and_leaves_nothing(started, tmp_path, monkeypatch):
    write_archive(tmp_path, 2)
    ready = passes.run_passes

    def with_another_bundle(units, settings, pool):
        from dataclasses import replace

        return ready(units, replace(settings, bundle=replace(settings.bundle, sha256="0" * 64)), pool)

    monkeypatch.setattr("tcmoa_runtime.bulk.run.run_passes", with_another_bundle)
    with pytest.raises(
        InputError, match=r"^nano-vif: SHA-256 of bundle.json is .* on this node; expected 0000"
    ):
        fuse_in_bulk(BUNDLE, tmp_path / "x", tmp_path / "y", tmp_path / "new" / "out", bulk_options(actors=1))
    assert not (tmp_path / "new").exists()
    assert ray.is_initialized()
