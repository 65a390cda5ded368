"""Bulk fusion without the processes of Ray, for what they make no difference to."""

import contextlib
import pickle
from functools import lru_cache
from types import SimpleNamespace

import pytest

from bulk_pieces import COUNT, plain_results, small_bundle, write_archive
from tcmoa_runtime import Fuser
from tcmoa_runtime.cluster.nodes import ClusterNode
from tcmoa_runtime.cluster.session import RaySession


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """A folder with x/ and y/, the names of its pairs, and what the plain Fuser makes of them; read-only."""
    folder = tmp_path_factory.mktemp("archive")
    names = write_archive(folder, COUNT)
    return folder, names, plain_results(folder, names, small_bundle())


@lru_cache
def _load_once(path, backend, **options):
    """Load a Fuser that the runs of all tests share: loading takes 40 ms, and fusing a pair 10 ms."""
    return Fuser.load(path, backend, **options)


@pytest.fixture
def in_process(monkeypatch):
    """Let `fuse_in_bulk` fuse its units one after the other in this process, as blocks that Ray would hand on."""

    from tcmoa_runtime import Bundle
    from tcmoa_runtime.bulk import passes, run, worker
    from tcmoa_runtime.bulk.worker import RESULT_COLUMN, BulkWorker
    from tcmoa_runtime.cluster.bundle_shipping import BundleReference, bundle_hash

    @contextlib.contextmanager
    def session(address, *, num_cpus):
        assert address is None
        yield RaySession(None, (ClusterNode("node", "127.0.0.1", 2.0, 0.0),))

    def ship(bundle, nodes):
        return BundleReference(str(bundle), bundle_hash(Bundle.open(bundle)), str(bundle))

    def one_pass(units, settings, pool):
        worker = BulkWorker(settings)
        for index, unit in enumerate(units):
            (row,) = worker(passes.block_of(index, unit)).to_pylist()
            yield unit, pickle.loads(row[RESULT_COLUMN])

    monkeypatch.setattr(worker, "Fuser", SimpleNamespace(load=_load_once))
    monkeypatch.setattr(run, "ray_session", session)
    monkeypatch.setattr(run, "ship_bundle", ship)
    monkeypatch.setattr(run, "run_passes", one_pass)
