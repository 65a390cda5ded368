"""`tcmoa serve`: the command line, signals and exit codes, and the example of the guide."""

import contextlib
import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from service_pieces import SECONDS, HttpService, infer_body, noise, running_service
from tcmoa_runtime import Fuser, InputError
from tcmoa_runtime.cluster.nodes import ClusterNode
from tcmoa_runtime.errors import BundleError, MissingError, TcmoaError
from tcmoa_runtime.options.serve import ListenOptions, ReplicaOptions, ServeOptions
from tcmoa_runtime.serving.bundles import name_bundles

pytest.importorskip("uvicorn", reason="uvicorn is not installed; `pip install 'tcmoa[serve]'` runs this")

from tcmoa_runtime.serving.deployment import build_application
from tcmoa_runtime.serving.ray_service import _check_places, _start_error

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "serving.md"
COMMAND = [sys.executable, "-c", "import sys; from tcmoa_runtime.cli import run; sys.exit(run(sys.argv[1:]))"]


@contextlib.contextmanager
def serving(*arguments):
    """Run `tcmoa serve` on a free port; yield the process and its service when requests are taken."""
    process = subprocess.Popen(
        [*COMMAND, "serve", *map(str, arguments), "--port", "0", "--threads", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stderr.readline()
        match = re.fullmatch(r"service: http://127\.0\.0\.1:(\d+)/ serves night, vif\n", line)
        assert match, line + process.stderr.read()
        yield process, HttpService(int(match[1]))
    finally:
        process.kill()
        process.communicate()


def wait_for_metric(service, name, call=None):
    """Wait until a request is counted as waiting or running; `call` sends it."""
    while f"tcmoa_serve_{name} 1\n".encode() not in service.request("GET", "/metrics")[2]:
        assert call is None or call.is_alive()


def test_a_signal_ends_the_service_when_requests_in_flight_have_ended(vif, exported):
    x = noise(100, 130, 1)
    body, length = infer_body({"x": x, "y": x})
    with serving(f"night={exported('plain')}", vif) as (process, service):
        assert service.call("GET", "/v2/models/vif/ready") == (200, {"name": "vif", "ready": True})
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.putrequest("POST", "/v2/models/night/infer")
            connection.putheader("Inference-Header-Content-Length", str(length))
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:-1])
            wait_for_metric(service, "queue_length")
            process.send_signal(signal.SIGTERM)
            while service.request("GET", "/v2/health/ready")[0] != 503:
                pass
            connection.send(body[-1:])
            response = connection.getresponse()
            size = int(response.headers["Inference-Header-Content-Length"])
            fused = np.frombuffer(response.read()[size:], np.uint8)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (0, "", "")
    with Fuser.load(exported("plain"), threads=1) as fuser:
        np.testing.assert_array_equal(fused.reshape(x.shape), fuser(x, x))


def test_a_second_signal_cuts_requests_off(vif, exported):
    x = np.stack([noise(640, 480)] * 2)
    answers = []
    with serving(f"night={exported('plain')}", vif) as (process, service):
        call = threading.Thread(target=lambda: answers.append(service.infer(x, model="night")))
        call.start()
        wait_for_metric(service, "running", call)
        process.send_signal(signal.SIGINT)
        while service.request("GET", "/v2/health/ready")[0] != 503:
            assert call.is_alive()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
        call.join(SECONDS)
    assert (process.returncode, out, err) == (130, "", "tcmoa: interrupted\n")
    assert answers[0][0] == 503


WRONG = {
    "no bundle": (["no-such", "--port", "0"], "no-such: no such bundle; expected a folder or one of "
                  "nano-vif, nano-mef, nano-mff. Make a bundle with `tcmoa export`"),
    "twice": (["nano-vif", "nano-vif"], "nano-vif: the name nano-vif is that of nano-vif already; expected a name "
              "for each bundle. Give it another name: NAME=BUNDLE."),
    "name": (["a b=nano-vif"], "a b=nano-vif: the name 'a b' cannot stand in a URL; expected at most 100 letters, "
             "digits, dots, dashes and underscores, first a letter or a digit. Give it another name: NAME=BUNDLE."),
    "token": (["nano-vif", "--token", "short"], "token: 5 characters; expected 8 or more, of letters, digits, - . _ "
              "and ~"),
    "host": (["nano-vif", "--host", "203.0.113.7", "--token", "long-enough"],
             "service: cannot listen on 203.0.113.7:8000: Cannot assign requested address. Choose another port, or 0 "
             "for any free port."),
    "host with port": (["nano-vif", "--host", "localhost:80"],
                       "--host: 'localhost:80'; expected a name or an IP address, e.g. 127.0.0.1"),
    "url": (["nano-vif", "--host", "http//x"], "--host: 'http//x'; expected a name or an IP address, e.g. 127.0.0.1"),
    "no host": (["nano-vif", "--host", ""], "--host: ''; expected a name or an IP address, e.g. 127.0.0.1"),
    "port": (["nano-vif", "--port", "70000"], "--port: 70000; expected 0 to 65535"),
    "concurrency": (["nano-vif", "--concurrency", "0"], "--concurrency: 0; expected 1 to 256"),
    "queue": (["nano-vif", "--max-queue", "-1"], "--max-queue: -1; expected 0 to 10000"),
    "body": (["nano-vif", "--max-body-mib", "0"], "--max-body-mib: 0 MiB; expected 1 to 2048 MiB"),
    "pixels": (["nano-vif", "--max-megapixels", "nan"], "--max-megapixels: nan; expected a finite number"),
    "grace": (["nano-vif", "--grace", "-1"], "--grace: -1.0; expected seconds, 0 or more"),
    "replicas": (["nano-vif", "--replicas", "3,2"],
                 "--replicas: 3,2; expected MIN,MAX with 1 <= MIN <= MAX <= 10000"),
    "replicas text": (["nano-vif", "--replicas", "many"], "--replicas: 'many'; expected MIN,MAX or a number, e.g. 1,4"),
    "port of replicas": (["nano-vif", "--replicas", "1", "--port", "0"],
                         "--port: 0; expected 1 to 65535: the proxies of all nodes listen on it"),
    "gpus": (["nano-vif", "--gpus", "1.5"], "--gpus: 1.5; expected a whole number, or less than 1"),
    "gpus without Ray": (["nano-vif", "--gpus", "1"], "--gpus: 1, but GPUs are given to replicas on Ray; expected them "
                         "as well. Set --replicas 1,4 or --address auto, or leave it out: without Ray, the backend "
                         "takes a GPU."),
    "no folder": (["a="], "'a=': no bundle; expected its folder, or the name of a ready one: NAME=BUNDLE"),
    "empty": ([""], "argument 2: ''; expected a value. Check whether a shell variable is empty."),
    "mask": (["nano-vif", "--prompt-shift", "no-such.png"], "no-such.png: no such image file"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(tcmoa, case):
    arguments, line = WRONG[case]
    outcome = tcmoa("serve", *arguments)
    assert (outcome.code, outcome.out, outcome.err) == (2, "", f"tcmoa: error: {line}\n")


def test_a_port_in_use_is_one_line(tcmoa):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        outcome = tcmoa("serve", "nano-vif", "--port", port)
    outcome.assert_error(
        2, f"service: cannot listen on 127.0.0.1:{port}: Address already in use. Choose another port"
    )


def test_an_unknown_host_is_one_line(tcmoa):
    outcome = tcmoa("serve", "nano-vif", "--host", "no-such.invalid", "--token", "long-enough")
    outcome.assert_error(
        2,
        "service: no-such.invalid is not an address of this machine (",
        "); expected its name or IP address",
    )


def test_a_missing_package_names_the_extra(tcmoa, monkeypatch):
    loaded = [name for name in sys.modules if name.startswith(("tcmoa_runtime.serving.server", "uvicorn"))]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    outcome = tcmoa("serve", "nano-vif")
    outcome.assert_error(3, "tcmoa serve: the package uvicorn is not installed. Run `pip install", "serve]")


def test_a_path_that_exists_is_no_name(tmp_path):
    folder = tmp_path / "a=b"
    folder.mkdir()
    with pytest.raises(InputError, match="cannot stand in a URL"):
        name_bundles([str(folder)])
    assert name_bundles([f"c={folder}", "nano-vif"]) == {"c": str(folder), "nano-vif": "nano-vif"}


@pytest.mark.parametrize(
    ("arguments", "token", "line"),
    [
        ({}, "token-of-8", "bundles: missing; expected a list of bundles, e.g. [nano-vif]"),
        ({"bundles": "nano-vif"}, "token-of-8", "bundles: missing; expected a list of bundles, e.g. [nano-vif]"),
        ({"bundles": ["nano-vif"], "max_que": 3}, "token-of-8",
         "args: 'max_que' is no option; expected e.g. 'max_queue'"),
        ({"bundles": ["nano-vif"], "threads": "4"}, "token-of-8", "threads: '4'; expected a whole number"),
        ({"bundles": ["nano-vif"], "backend": "cuda"}, "token-of-8", None),
        ({"bundles": ["nano-vif"], "replicas": [2, 1]}, "token-of-8",
         "replicas: 2,1; expected MIN,MAX with 1 <= MIN <= MAX <= 10000"),
        ({"bundles": ["nano-vif"]}, None, "TCMOA_TOKEN: not set; expected the token that clients need. Set it in the "
         "environment."),
        ({"bundles": ["nano-vif"]}, "short",
         "token: 5 characters; expected 8 or more, of letters, digits, - . _ and ~"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_of_ray_serve_is_one_line(monkeypatch, arguments, token, line):
    """Ray Serve itself accepts any arguments."""
    if token is None:
        monkeypatch.delenv("TCMOA_TOKEN", raising=False)
    else:
        monkeypatch.setenv("TCMOA_TOKEN", token)
    with pytest.raises(InputError) as caught:
        build_application(arguments)
    assert line is None or str(caught.value) == line
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("report", "kind", "line"),
    [
        ("RuntimeError\nray::X()\n  File x\ntcmoa_runtime.errors.MissingError: tensorrt: not installed. Run `x`.",
         MissingError, "in a replica: tensorrt: not installed. Run `x`."),
        ("tcmoa_runtime.errors.BundleError: a: damaged", BundleError, "in a replica: a: damaged"),
        ("Failed to update the deployments\nmore", TcmoaError, "Ray Serve: the replicas cannot be started: Failed to "
         "update the deployments. Run it again with the environment variable TCMOA_DEBUG=1 for Ray's own messages."),
    ],
)  # fmt: skip
def test_an_error_in_a_replica_has_its_type_and_line(report, kind, line):
    error = _start_error(RuntimeError(report), report)
    assert (type(error), str(error)) == (kind, line)


def test_replicas_for_which_there_is_no_room_are_refused_or_waited_for(caplog):
    nodes = [ClusterNode("a", "127.0.0.2", 4, 1), ClusterNode("b", "127.0.0.3", 3, 0)]
    _check_places(nodes, ReplicaOptions(replicas=(3, 9)), 2, is_private=True)
    with pytest.raises(InputError) as caught:
        _check_places(nodes, ReplicaOptions(replicas=(4, 9)), 2, is_private=True)
    assert str(caught.value) == (
        "replicas: 4 replicas with 2 CPUs each; expected at most 3, for which this machine has room. Lower replicas, "
        "threads or gpus, or give the address of a cluster."
    )
    _check_places(nodes, ReplicaOptions(replicas=(2, 2), gpus=0.5), 1, is_private=False)
    assert not caplog.records
    _check_places(nodes, ReplicaOptions(replicas=(3, 3), gpus=0.5), 1, is_private=False)
    (record,) = caplog.records
    assert record.getMessage() == (
        "service: waits until the cluster has room for 3 replicas with 1 CPUs and 0.5 GPUs each; it has room for 2"
    )


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "localhost", "service.example"])
def test_hosts_are_names_and_addresses(host):
    address = ListenOptions(host=host, port=80).address
    assert (address.host, address.port) == (host, 80)


def test_the_options_of_a_file_are_those_of_the_command():
    assert ReplicaOptions(replicas=(2.0, 8.0)).bounds == (2, 8)
    assert ServeOptions(max_megapixels=0.5).max_pixels == 500_000
    with pytest.raises(InputError, match=r"replicas: 1\.5,2"):
        ReplicaOptions(replicas=(1.5, 2))


def test_the_client_of_the_guide_works():
    pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    (code,) = re.findall(r"```py\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    with Fuser.load("nano-vif", threads=1) as fuser, running_service({"nano-vif": fuser}) as running:
        names = {}
        exec(code.replace(":8000", f":{running.port}"), names)
        expected = fuser(names["x"], names["y"], shift=0.2)
    names["client"].close()
    np.testing.assert_array_equal(names["fused"], expected)
