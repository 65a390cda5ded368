"""The log: nothing is printed by the library, secrets are hidden, and commands show what the environment names."""

import ast
import json
import logging
import re
import warnings
from datetime import datetime
from pathlib import Path

import pytest

import tcmoa_runtime
from tcmoa_runtime import Fuser, InputError
from tcmoa_runtime.backends.pick import load_backend, write_pick
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.cli import models
from tcmoa_runtime.log import ROOT, get_logger, log_step, silenced_log
from tcmoa_runtime.log_output import JsonFormatter, LogSettings, shown_log
from tcmoa_runtime.streams.event_log import DropLog, LossLog

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "logging.md"
SECRET = "rtsp://admin:hunter2@camera/live"
SHOWN = "rtsp://***@camera/live"


def test_a_program_without_logging_prints_nothing(fresh_python):
    outcome = fresh_python(
        "import tcmoa_runtime\nfrom tcmoa_runtime.log import get_logger\n"
        "get_logger('streams').warning('lost'); get_logger('page').error('failed')\n"
    )
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_every_handler_gets_records_without_secrets(caplog):
    error = InputError("no answer", subject=SECRET)
    logging.getLogger("tcmoa.streams").warning(
        "%s: %s, %d, %s",
        SECRET,
        error,
        7,
        Path("a.png"),
        extra={"event": "x", "location": SECRET, "count": 7},
    )
    get_logger("fleet").error(f"in the text: {SECRET}")  # as a careless caller does
    record, careless = caplog.records
    assert careless.getMessage() == f"in the text: {SHOWN}"
    assert record.getMessage() == f"{SHOWN}: {SHOWN}: no answer, 7, a.png"
    assert (record.location, record.count) == (SHOWN, 7)
    assert record.args[3] == Path("a.png")


def test_an_error_without_secrets_stays_an_error(caplog):
    error = InputError("no answer", subject="camera")
    get_logger("engines").warning("%s", error)
    assert caplog.records[0].args == (error,)


def test_silence_covers_every_topic_and_ends(caplog):
    with silenced_log():
        ROOT.warning("unheard")
        get_logger("backends").error("unheard")
    get_logger("backends").error("heard")
    assert caplog.messages == ["heard"]


def test_steps_are_logged_by_default(caplog):
    caplog.set_level(logging.DEBUG, "tcmoa")
    log_step("writing %s")
    assert caplog.record_tuples == [("tcmoa.steps", logging.DEBUG, "writing %s")]


@pytest.mark.parametrize(
    ("environment", "level", "form"),
    [
        ({}, "warning", "text"),
        ({"TCMOA_LOG": "", "TCMOA_LOG_FORMAT": ""}, "warning", "text"),
        ({"TCMOA_LOG": "debug", "TCMOA_LOG_FORMAT": "json"}, "debug", "json"),
    ],
)
def test_the_environment_sets_level_and_form(environment, level, form):
    settings = LogSettings.from_environment(environment)
    assert settings == LogSettings(level=level, format=form)
    assert settings.level_number == getattr(logging, level.upper())


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [("TCMOA_LOG", "INFO", "debug, info, warning, error"), ("TCMOA_LOG_FORMAT", "xml", "text, json")],
)
def test_another_value_is_refused_in_one_line(name, value, choices, tcmoa, monkeypatch):
    monkeypatch.setenv(name, value)
    outcome = tcmoa("models")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"tcmoa: error: {name}: {value!r}; expected one of {choices}\n"


def test_a_shown_log_is_restored_afterwards():
    handler = logging.NullHandler()
    before = (ROOT.level, list(ROOT.handlers))
    with shown_log(handler, LogSettings(level="debug")):
        assert (ROOT.level, handler.level, handler in ROOT.handlers) == (logging.DEBUG, logging.DEBUG, True)
    assert (ROOT.level, ROOT.handlers) == before


def test_json_has_time_level_logger_message_fields_and_traceback():
    error = RuntimeError(f"cannot open {SECRET}")
    fault = (type(error), error, None)
    record = ROOT.makeRecord(
        "tcmoa.page",
        logging.ERROR,
        "f",
        1,
        "a\n%s",
        (SECRET,),
        fault,
        extra={"event": "x", "path": Path("/a")},
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "hunter2" not in line
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("time")).timestamp() == pytest.approx(record.created, abs=0.001)
    assert entry.pop("exception").endswith(f"RuntimeError: cannot open {SHOWN}")
    assert entry == {
        "level": "error",
        "logger": "tcmoa.page",
        "message": f"a\n{SHOWN}",
        "event": "x",
        "path": "/a",
    }


WORKER = """
import logging
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.log_output import show_log_of_worker
show_log_of_worker()
show_log_of_worker()
get_logger("fleet").warning("lost %s", "rtsp://admin:hunter2@camera/live", extra={"event": "x"})
get_logger("fleet").info("not shown")
"""


def test_a_worker_shows_its_log_once_on_stderr(fresh_python, monkeypatch):
    outcome = fresh_python(WORKER)
    assert re.fullmatch(rf"[-\d]+ [:,\d]+ tcmoa: WARNING: lost {re.escape(SHOWN)}\n", outcome.err)
    monkeypatch.setenv("TCMOA_LOG_FORMAT", "json")
    (line,) = fresh_python(WORKER).err.splitlines()
    assert json.loads(line).items() > {"level": "warning", "event": "x", "message": f"lost {SHOWN}"}.items()


@pytest.fixture
def fuse(tcmoa, vif, sources, tmp_path):
    """Function that runs `tcmoa fuse` and returns its outcome."""
    return lambda: tcmoa("fuse", vif, *sources, "--backend", "onnxruntime", "-o", tmp_path / "out.png")


def test_a_command_shows_the_level_that_is_named(fuse, vif, monkeypatch):
    assert fuse().err == ""
    monkeypatch.setenv("TCMOA_LOG", "info")
    backend, loaded = fuse().err.splitlines()
    assert backend == f"tcmoa: info: {vif}: backend onnxruntime (CPU) (it was named)"
    assert re.fullmatch(rf"tcmoa: info: {vif}: loaded in [0-9.]+ s, fp32 for 130x100", loaded)
    monkeypatch.setenv("TCMOA_LOG", "debug")
    assert f"tcmoa: debug: {vif}: opened" in fuse().err.splitlines()
    monkeypatch.delenv("TCMOA_LOG")
    assert fuse().err == ""


def test_every_line_is_json_where_that_is_named(fuse, tcmoa, vif, sources, tmp_path, monkeypatch):
    monkeypatch.setenv("TCMOA_LOG", "debug")
    monkeypatch.setenv("TCMOA_LOG_FORMAT", "json")
    outcome = fuse()
    assert outcome.out.startswith(f"{tmp_path}/out.png (onnxruntime")
    opened, chosen, loaded = map(json.loads, outcome.err.splitlines())
    assert opened["event"] == "bundle-opened"
    assert (
        chosen.items()
        > {"logger": "tcmoa.backends", "event": "backend-chosen", "reasons": ["it was named"]}.items()
    )
    assert loaded.items() > {"level": "info", "bundle": str(vif), "backend": "onnxruntime (CPU)"}.items()
    missing = tmp_path / "no.png"
    outcome = tcmoa("fuse", vif, sources[0], missing, "-o", tmp_path / "out.png")
    assert (outcome.code, outcome.out) == (2, "")
    *_, error = map(json.loads, outcome.err.splitlines())
    error.pop("time")
    assert error == {
        "level": "error",
        "logger": "tcmoa",
        "message": f"{missing}: no such image file",
        "subject": str(missing),
        "problem": "no such image file",
        "remedy": None,
    }
    *_, usage = map(json.loads, tcmoa("fuse", "--no-such-option").err.splitlines())
    assert usage["level"] == "error"
    assert "--no-such-option" in usage["message"]


def test_messages_and_progress_are_json_too(tcmoa, tmp_path, monkeypatch):
    monkeypatch.setenv("TCMOA_LOG_FORMAT", "json")
    outcome = tcmoa(
        "export", "--weights", "nano", "--task", "vif", "--size", "32x32", "--out", tmp_path / "b"
    )
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.err.splitlines()]
    assert {line["level"] for line in lines} <= {"info", "warning"}
    assert any(line["message"] == "export: writing the graph" for line in lines)


@pytest.mark.parametrize(
    ("level", "form", "expected"),
    [
        ("warning", "text", ["tcmoa: note: a note", "tcmoa: warning: a warning"]),
        ("error", "text", []),
        (
            "warning",
            "json",
            [("warning", "py.warnings", "a note"), ("warning", "tcmoa.engines", "a warning")],
        ),
    ],
)
def test_notes_and_warnings_have_a_level(level, form, expected, tcmoa, monkeypatch):
    def warn():
        warnings.warn("a note", UserWarning, stacklevel=1)
        get_logger("engines").warning("a warning")
        return []

    monkeypatch.setattr(models, "shipped_weights", warn)
    monkeypatch.setenv("TCMOA_LOG", level)
    monkeypatch.setenv("TCMOA_LOG_FORMAT", form)
    lines = tcmoa("models").err.splitlines()
    if form == "json":
        lines = [(line["level"], line["logger"], line["message"]) for line in map(json.loads, lines)]
    assert lines == expected


def test_reasons_for_a_backend_name_what_was_skipped(vif, caplog, monkeypatch, no_openvino):
    caplog.set_level(logging.INFO, "tcmoa")
    load_backend(Bundle.open(vif)).close()
    (record,) = caplog.records
    assert record.reasons == ["tensorrt: no engine of this bundle", "openvino: not installed"]
    assert record.getMessage() == f"{vif}: backend onnxruntime (CPU) ({'; '.join(record.reasons)})"


def test_a_recorded_backend_is_the_reason(broken, caplog):
    caplog.set_level(logging.INFO, "tcmoa")
    bundle = Bundle.open(broken)
    write_pick(bundle, {"onnxruntime": 1.0})
    load_backend(bundle).close()
    assert caplog.records[0].reasons == ["recorded as the fastest one here"]


def test_loading_is_logged(vif, caplog):
    caplog.set_level(logging.INFO, "tcmoa.bundle")
    Fuser.load(vif, "onnxruntime").close()
    assert [record.event for record in caplog.records] == ["bundle-loaded"]


def test_bursts_of_drops_are_logged_once_a_minute(caplog):
    caplog.set_level(logging.INFO, "tcmoa")
    times = iter(())
    log = DropLog(lambda: next(times))

    def drop(count, *at):
        nonlocal times
        times = iter(at)
        for _ in at:
            burst = log.record("x-superseded", count)
            if burst is not None:
                burst()

    drop(9, 0.0, 20.0, 40.0)  # 9 in ten seconds are no burst
    assert caplog.messages == []
    drop(3, 44.0)
    assert caplog.messages == ["12 frames dropped within 4.0 s (x-superseded)"]
    assert caplog.records[0].count == 12
    drop(5, *range(45, 104))
    assert len(caplog.messages) == 1
    drop(5, 105.0)
    assert len(caplog.messages) == 2


def test_a_loss_is_logged_once_and_again_only_if_it_lasts(caplog):
    caplog.set_level(logging.INFO, "tcmoa")
    log = LossLog()
    log.record_found("x")
    for now in (0.0, 0.1):
        log.record_lost("x", now)
    log.record_found("x")
    log.record_lost("x", 5.0)  # soon after
    log.record_found("x")
    assert [record.event for record in caplog.records] == ["source-lost", "source-found"]
    log.record_lost("x", 9.0)
    log.record_lost("x", 10.0)  # for a second
    assert [record.event for record in caplog.records][2:] == ["source-lost"]


def events_in_source():
    """Yield the event of each record with fields, and where it is."""
    for path in Path(tcmoa_runtime.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Dict):
                continue
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if "event" in keys:
                value = node.values[keys.index("event")]
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value, keys, path.name


def test_the_guide_lists_every_event():
    listed = {
        name
        for row in re.findall(r"^\|.*\|$", GUIDE.read_text(), re.MULTILINE)
        for name in re.findall(r"`([a-z-]+)`", row.split("|")[2])
    }
    found = {event for event, _, _ in events_in_source()}
    assert found - listed == set()
    assert {name for name in listed if "-" in name or name == "flicker"} - found == set()


def test_fields_have_no_names_of_every_record():
    reserved = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
    for event, keys, file in events_in_source():
        assert not reserved & set(keys), (event, file)
