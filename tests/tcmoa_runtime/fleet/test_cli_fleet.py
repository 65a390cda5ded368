"""`tcmoa fleet`: wrong uses in one line; tests/test_growing.py runs a fleet on this machine alone."""

import contextlib
import os
from types import SimpleNamespace

import pytest

from tcmoa_runtime.fleet.claim import check_outputs_free, claimed_fleet
from tcmoa_runtime.fleet.file import FleetFile
from tcmoa_runtime.fleet.supervisor import FleetStatus, PairStatus
from tcmoa_runtime.streams.output_locks import OutputLocks

pytest.importorskip("ray", reason="ray is not installed; `pip install 'tcmoa[ray]'` runs this")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "yard.toml"
    path.write_text(
        '[pairs.gate]\nbundle = "nano-vif"\nx = "rtsp://u:secret@127.0.0.1:9/x"\ny = "rtsp://h/y"\n'
    )
    return path


@pytest.fixture
def named(file):
    file.write_text(f'name = "yard"\n{file.read_text()}')
    return file


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--status", "--stop"], "tcmoa fleet: both status and stop; expected one of them"),
        (["--json"], "--json: only the status has a result. Add --status, or leave it out."),
        (["--stop"], "--address: no cluster; expected the one on which the fleet runs. Give --address auto. A fleet on "
         "this machine alone ends with Ctrl-C, and its page shows it."),
        (["--page", "x y"], "--page: 'x y'; expected HOST:PORT with a port of 0 to 65535, e.g. 127.0.0.1:8090, or "
         "off"),
        (["--page", ""], "--page: ''; expected HOST:PORT with a port of 0 to 65535, e.g. 127.0.0.1:8090, or off"),
        (["--page", "OFF"], "--page: 'OFF'; expected HOST:PORT, or off"),
        (["--token", "short"], "token: 5 characters; expected 8 or more, of letters, digits, - . _ and ~"),
        (["--page", "203.0.113.1:80"], "page of the fleet: cannot listen on 203.0.113.1:80: Cannot assign requested "
         "address. Choose another port, or 0 for any free port."),
        (["--page", "off", "--address", "nowhere"], "--address: 'nowhere'; expected auto, HOST:6379 or ray://HOST:10001"),
    ],
)  # fmt: skip
def test_a_wrong_use_is_one_line(tcmoa, named, arguments, line):
    outcome = tcmoa("fleet", named, *arguments)
    outcome.assert_error(2)
    assert outcome.err == f"tcmoa: error: {line}\n"


@pytest.mark.parametrize("options", [["--page", "off"], ["--status"], ["--stop"]])
def test_a_fleet_on_a_cluster_needs_a_name_of_its_own(tcmoa, file, options):
    outcome = tcmoa("fleet", file, "--address", "127.0.0.1:9", *options)
    outcome.assert_error(2)
    assert outcome.err == (
        f"tcmoa: error: {file}: no name; expected one, by which a cluster tells this fleet from others. Begin the file "
        'with a line such as name = "yard".\n'
    )


def test_a_wrong_file_is_one_line_before_ray_is_started(tcmoa, file, monkeypatch):
    file.write_text(file.read_text().replace("y =", "yy ="))
    monkeypatch.setattr("tcmoa_runtime.fleet.run.ray_session", lambda _: pytest.fail("Ray is started"))
    tcmoa("fleet", file, "--page", "off").assert_error(
        2, f"{file}: pairs.gate: 'yy' is no option; expected e.g. 'y'"
    )
    outcome = tcmoa("fleet", file.with_name("none.toml"), "--page", "off")
    outcome.assert_error(2, "none.toml: cannot be read: No such file or directory")


@pytest.fixture
def ready(file, tmp_path, monkeypatch):
    """A fleet with an output; a test that starts Ray with it fails."""
    file.write_text(f"{file.read_text()}out = 'out/{{pair}}-{{time}}.mkv'\n")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("tcmoa_runtime.fleet.run.ray_session", lambda _: pytest.fail("Ray is started"))
    monkeypatch.setattr("tcmoa_runtime.fleet.claim.ORPHAN_S", 0.0)
    return file


@pytest.mark.parametrize("page", ["off", "127.0.0.1:8090"])
def test_a_second_supervisor_of_a_file_is_refused_whatever_its_path(tcmoa, ready, tmp_path, page):
    link = tmp_path / "out" / "link.toml"
    link.symlink_to(ready)
    with claimed_fleet(ready):
        outcome = tcmoa("fleet", link, "--page", page)
    outcome.assert_error(2)
    assert outcome.err == (
        f"tcmoa: error: {link}: process {os.getpid()} runs this fleet already; expected one supervisor. End that one "
        "first: it reads changes of the file by itself.\n"
    )
    with claimed_fleet(link):
        pass


def test_a_fleet_whose_output_a_stream_writes_is_refused(tcmoa, ready, tmp_path, monkeypatch):
    locks = OutputLocks("pair gate of fleet roof")
    locks.add([f"{tmp_path}/out/gate-{{time}}.mkv"])
    outcome = tcmoa("fleet", ready, "--page", "off")
    outcome.assert_error(2)
    assert outcome.err == (
        f"tcmoa: error: {ready}: pairs.gate: {tmp_path}/out/gate-{{time}}.mkv: is being written by process "
        f"{os.getpid()} (pair gate of fleet roof); expected one stream at a time. Wait until it has ended, or choose "
        "another output.\n"
    )
    # One that ends meanwhile, as those of a supervisor that was killed, is waited for.
    monkeypatch.setattr("tcmoa_runtime.fleet.claim.ORPHAN_S", 60.0)
    monkeypatch.setattr("tcmoa_runtime.fleet.claim.time.sleep", lambda _: locks.close())
    check_outputs_free(FleetFile.read(ready), ready)


class StubbornFleet:
    """A supervisor of streams of which one does not end in time."""

    fleet, is_fleet_stopping = "yard", False

    def look(self, seconds=0.0):
        return FleetStatus("yard", (PairStatus("gate", "running", None, 1.0, None),))

    status = look

    def stop_all(self, **_):
        return False


def test_streams_that_do_not_complete_their_files_are_an_error(tcmoa, named, monkeypatch):
    @contextlib.contextmanager
    def visit(*_):
        yield StubbornFleet()

    monkeypatch.setattr("tcmoa_runtime.fleet.run.visit_fleet", visit)
    outcome = tcmoa("fleet", named, "--address", "127.0.0.1:9", "--stop")
    outcome.assert_error(
        1, "fleet yard: a stream did not complete its files in time; expected all to. The log names it. "
    )
    assert outcome.out == ""

    @contextlib.contextmanager
    def open_fleet(*_):
        yield SimpleNamespace(
            supervisor=StubbornFleet(), session=SimpleNamespace(is_private=True), watch=lambda *_: None
        )

    monkeypatch.setattr("tcmoa_runtime.fleet.run.open_fleet", open_fleet)
    outcome = tcmoa("fleet", named, "--page", "off")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith(
        "tcmoa: error: fleet yard: a stream did not complete its files"
    )


def test_an_unknown_bundle_is_one_line_before_ray_starts(tcmoa, tmp_path):
    path = tmp_path / "fleet.toml"
    path.write_text('[pairs.a]\nbundle = "nano-viff"\nx = "rtsp://h/x"\ny = "rtsp://h/y"\n')
    outcome = tcmoa("fleet", path, "--page", "off")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(
        f"tcmoa: error: {path}: pairs.a: bundle: {tmp_path / 'nano-viff'}: no such bundle; expected a folder or one of "
    )


def test_without_ray_it_says_what_to_install(fresh_python, file):
    code = (
        f"from tcmoa_runtime.cli import run\nraise SystemExit(run(['fleet', {str(file)!r}, '--page', 'off']))"
    )
    outcome = fresh_python(code, blocked=("ray",))
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith("tcmoa: error: tcmoa fleet: the package ray is not installed. ")
    assert "[ray]" in outcome.err
    outcome = fresh_python(code.replace("'--page', 'off'", "'--page', '127.0.0.1:0'"), blocked=("uvicorn",))
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith("tcmoa: error: tcmoa fleet: the package uvicorn is not installed. ")
