"""Sessions of Ray, private and on a cluster, and bundles that reach its nodes. Simulated nodes are processes here."""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

import tcmoa_runtime
from process_tree import descendants, listeners, runs
from ray_cluster import cluster, connected  # noqa: F401  # fixtures
from tcmoa_runtime import Bundle
from tcmoa_runtime.bundle import MANIFEST
from tcmoa_runtime.cluster import processes
from tcmoa_runtime.cluster.bundle_shipping import CACHE_FOLDER, ship_bundle
from tcmoa_runtime.cluster.nodes import ClusterNode, check_nodes, on_each_node
from tcmoa_runtime.cluster.processes import processes_ended
from tcmoa_runtime.cluster.session import ray_session
from tcmoa_runtime.errors import BundleError, InputError, MissingError

pytestmark = pytest.mark.slow


def test_processes_of_a_private_ray_are_ended_also_those_that_begin_while_it_ends(tmp_path, monkeypatch):
    """One that does not end by itself is killed; one of another folder is left alone."""
    monkeypatch.setattr(processes, "GRACE_S", 0.1)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    folders = tmp_path / "a", tmp_path / "ab"
    with contextlib.ExitStack() as stack:
        with processes_ended(folders[0]):
            own, other = (
                stack.enter_context(subprocess.Popen([sys.executable, "-c", code, f"--dir={folder}/r"]))
                for folder in folders
            )
            stack.callback(other.kill)
        assert own.wait(0) == -signal.SIGKILL
        assert other.poll() is None


def test_a_private_ray_listens_on_loopback_only_needs_a_token_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # that of another cluster is not used
    handler = signal.getsignal(signal.SIGTERM)
    before = dict(os.environ)
    abandoned = Path("/tmp") / "tcmoa-ray-abandoned"
    abandoned.mkdir(exist_ok=True)
    (abandoned / "session.lock").touch()
    with ray_session(num_cpus=1, object_store_bytes=80_000_000) as session:
        assert session.is_private
        assert [node.num_cpus for node in session.nodes] == [1]
        assert ray.get(ray.remote(lambda: os.environ["RAY_AUTH_MODE"]).remote()) == "token"
        folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not abandoned.exists()
        sleeper = ray.get(ray.remote(lambda: subprocess.Popen(["sleep", "300"]).pid).remote())
        started = descendants(os.getpid())
        assert sleeper in started
        addresses = listeners([os.getpid(), *started])
        assert len(addresses) > 5
        assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1"}
        token = os.environ.pop("RAY_AUTH_TOKEN")
        with pytest.raises(InputError, match="the cluster needs a token, and none is set"):
            _connect_elsewhere(ray.get_runtime_context().gcs_address)
        os.environ["RAY_AUTH_TOKEN"] = token
    assert not folder.exists()
    assert [pid for pid in started if runs(pid)] == []
    assert dict(os.environ) == before
    assert signal.getsignal(signal.SIGTERM) is handler


def _connect_elsewhere(address):
    """Connect from another process, and raise what it raised."""
    import pickle

    code = (
        "import pickle, sys\n"
        "from tcmoa_runtime.cluster.session import ray_session\n"
        "try:\n"
        "    with ray_session(sys.argv[1]): pass\n"
        "except Exception as error:\n"
        "    sys.stdout.buffer.write(pickle.dumps(error))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    environment["HOME"] = "/nonexistent"
    done = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, env=environment, check=True
    )
    raise pickle.loads(done.stdout)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("head", "address: 'head'; expected auto, HOST:6379 or ray://HOST:10001"),
        ("head:0", "address: 'head:0'; expected auto, HOST:6379 or ray://HOST:10001"),
        ("http://head:8265", "address: 'http://head:8265'; expected auto, HOST:6379 or ray://HOST:10001"),
        (
            "127.9.9.9:9",
            "127.9.9.9:9: no Ray cluster answers; expected the address of a head node, e.g. HOST:6379, or "
            "ray://HOST:10001 for its Ray Client server. Start the head of one with `ray start`, or leave the address "
            "out to use this machine.",
        ),
        (
            "ray://127.9.9.9:9",
            "ray://127.9.9.9:9: no Ray Client server answers; expected the address of a head node, e.g. HOST:6379, "
            "or ray://HOST:10001 for its Ray Client server. Start the head of one with `ray start`, or leave the "
            "address out to use this machine.",
        ),
    ],
)
def test_wrong_addresses_are_one_line_at_once(address, line):
    start = time.monotonic()
    with pytest.raises(InputError) as caught, ray_session(address):
        pass
    assert str(caught.value) == line
    assert time.monotonic() - start < 30  # Ray itself asks for minutes


def test_a_cluster_refuses_no_token_a_wrong_one_and_the_other_port(cluster, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setenv("HOME", str(tmp_path))  # without ~/.ray/auth_token
    remedy = "Set RAY_AUTH_TOKEN to the token of the cluster, or write it to ~/.ray/auth_token."
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    for address in (cluster.address, cluster.client_address):
        with pytest.raises(InputError) as caught, ray_session(address):
            pass
        assert str(caught.value) == (
            f"{address}: the cluster needs a token, and none is set; expected its token. {remedy}"
        )
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 32)
    for address in (cluster.address, cluster.client_address):
        with pytest.raises(InputError) as caught, ray_session(address):
            pass
        assert str(caught.value) == f"{address}: the cluster refuses the token; expected its own. {remedy}"
    monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)
    refused = pytest.raises(InputError, match="another server, no Ray Client server answers")
    with refused, ray_session(f"ray://{cluster.address}"):
        pass


def check_session(session, cluster, address):  # noqa: F811
    """Check a session of the cluster, and that no other one begins beside it."""
    assert [node.address for node in session.nodes] == [node.address for node in cluster.nodes]
    assert session.address == address
    with pytest.raises(InputError, match="connected to Ray already"), ray_session(address):
        pass


def test_a_cluster_is_reached_by_address_and_by_a_program_that_is_connected(connected):  # noqa: F811
    with ray_session(connected.address) as session:
        check_session(session, connected, connected.address)
        with ray_session() as inner:
            assert not inner.is_private
        assert ray.is_initialized()


def test_nodes_with_another_version_are_named(connected, monkeypatch):  # noqa: F811
    monkeypatch.setattr("tcmoa_runtime.cluster.nodes.__version__", "9.9")
    with pytest.raises(MissingError) as caught, ray_session(connected.address):
        pass
    assert str(caught.value) == (
        f"node {connected.nodes[0].address}: tcmoa {tcmoa_runtime.__version__}; expected tcmoa 9.9 as here. "
        "Install tcmoa 9.9 with its extra ray on every node of the cluster."
    )
    assert not ray.is_initialized()


def test_a_node_without_the_package_is_named(monkeypatch):
    node = ClusterNode("a1", "10.0.0.7", 8.0, 0.0)
    monkeypatch.setattr("tcmoa_runtime.cluster.nodes.list_nodes", lambda: (node,))
    monkeypatch.setattr("tcmoa_runtime.cluster.nodes.on_each_node", lambda *_: ["!tcmoa_runtime"])
    version = tcmoa_runtime.__version__
    with pytest.raises(MissingError) as caught:
        check_nodes()
    assert str(caught.value) == (
        f"node 10.0.0.7: the package tcmoa_runtime is not installed; expected tcmoa {version} as here. "
        f"Install tcmoa {version} with its extra ray on every node of the cluster."
    )


def test_another_version_of_ray_is_named(connected, monkeypatch):  # noqa: F811
    version = ray.__version__
    monkeypatch.setattr(ray, "__version__", "9.9.9")
    python = ".".join(map(str, sys.version_info[:3]))
    for address in (connected.address, connected.client_address):
        with pytest.raises(MissingError) as caught, ray_session(address):
            pass
        assert str(caught.value) == (
            f"{address}: the cluster runs Ray {version}, Python {python}; expected Ray 9.9.9 and Python {python} as "
            "here. Install the versions of the cluster here, or those of here on its nodes."
        )
    assert not ray.is_initialized()


def test_a_cluster_is_reached_by_client_whose_server_is_asked_for_again(connected, monkeypatch):  # noqa: F811
    """Ray starts a server for each client, and takes a port that another process may have taken meanwhile."""
    init, failures, calls = ray.init, 1, 0
    error = ConnectionAbortedError("Initialization failure from server:\nTraceback\nRuntimeError: no port")

    def fails(**options):
        nonlocal calls
        calls += 1
        if calls <= failures:
            raise error
        return init(**options)

    monkeypatch.setattr(ray, "init", fails)
    monkeypatch.setattr("tcmoa_runtime.cluster.session._RETRY_S", 0.1)
    with ray_session(connected.client_address) as session:
        check_session(session, connected, connected.client_address)
    assert calls >= 2
    failures, calls = math.inf, 0
    with pytest.raises(InputError) as caught, ray_session(connected.client_address):
        pass
    assert str(caught.value) == (
        f"{connected.client_address}: the connection failed: RuntimeError: no port. "
        "Run it again with the environment variable TCMOA_DEBUG=1 for Ray's own messages."
    )
    assert calls == 4
    error = ConnectionError('Request: <RPC that has terminated:\n\tdetails = "session cleaned up"\n>')
    refused = pytest.raises(InputError, match=r": the connection failed: session cleaned up\. Run it again ")
    with refused, ray_session(connected.client_address):
        pass


def test_a_bundle_reaches_every_node_by_name_by_path_and_by_copy(connected, tmp_path):  # noqa: F811
    own = Path(shutil.copytree(Bundle.open("nano-vif").path, tmp_path / "own"))
    (own / "engines").mkdir()
    (own / "engines" / "gpu.engine").write_bytes(b"engine")
    (own / "engines" / "link.engine").symlink_to("/etc/passwd")
    with ray_session(connected.address) as session:

        def open_there(reference):
            path = reference.open_path()
            return str(path), sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())

        by_name = ship_bundle("nano-vif")
        assert (by_name.path, by_name.files) == ("nano-vif", ())
        by_path = ship_bundle(own)
        assert (by_path.path, by_path.files) == (str(own), ())
        copied = ship_bundle(own, copy=True)
        assert copied.path is None
        for _ in range(2):  # the second time from the cache
            results = on_each_node(open_there, session.nodes, copied)
            for node, (path, files) in zip(connected.nodes, results, strict=True):
                assert path == str(node.cache / "tcmoa" / CACHE_FOLDER / copied.sha256)
                assert files == ["bundle.json", "engines/gpu.engine", "fusion.onnx"]
                assert Bundle.open(path).manifest == Bundle.open(own).manifest
        graph = Path(results[0][0]) / "fusion.onnx"
        graph.write_bytes(graph.read_bytes()[:-1])  # damaged: fetched again
        on_each_node(open_there, session.nodes, copied)
        assert graph.read_bytes() == (own / "fusion.onnx").read_bytes()
        assert not list(graph.parents[1].glob(".*"))

        shutil.copy(Bundle.open("nano-mef").path / MANIFEST, own / MANIFEST)
        with pytest.raises(BundleError, match=r"SHA-256 of bundle.json is .* on this node; expected"):
            ray.get(ray.remote(open_there).remote(by_path))
        with pytest.raises(BundleError, match=r"truncated|was changed"):
            ship_bundle(own, copy=True)
