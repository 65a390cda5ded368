"""No library that fuses sends anything, looks up a name or writes to the home folder."""

import json
import os
import sys

import pytest

from tcmoa_runtime.telemetry import ORT_VARIABLE, disable_onnxruntime_telemetry, without_openvino_telemetry

RECORD = """
import json, os, sys
seen = {}
class Recorder:
    def find_spec(self, name, path=None, target=None):
        if name in ("onnxruntime", "openvino", "openvino_telemetry"):
            seen[name] = os.environ.get("ORT_DISABLE_TELEMETRY")
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
sys.meta_path.insert(0, Recorder())
"""
MODULES = {
    "onnxruntime": (
        "tcmoa_runtime.backends.onnxruntime",
        "tcmoa_calibration.quantize.sessions",
        "tcmoa_export.graph_session",
    ),
    "openvino": ("tcmoa_runtime.backends.openvino",),
}


@pytest.mark.parametrize(("library", "module"), [(name, m) for name, ms in MODULES.items() for m in ms])
def test_telemetry_is_off_before_a_library_is_imported(library, module, fresh_python):
    done = fresh_python(
        f"{RECORD}\nimport {module}\nprint(json.dumps([seen, 'openvino_telemetry' in sys.modules]))"
    )
    seen, has_telemetry = json.loads(done.out)
    assert seen[library] == "1"
    assert "openvino_telemetry" not in seen
    assert not has_telemetry


def test_a_library_that_was_imported_before_is_told(monkeypatch):
    calls = []
    monkeypatch.setattr("onnxruntime.disable_telemetry_events", lambda: calls.append("disabled"))
    monkeypatch.delenv(ORT_VARIABLE)
    disable_onnxruntime_telemetry()
    assert calls == ["disabled"]
    assert os.environ[ORT_VARIABLE] == "1"


def test_the_module_of_openvinos_telemetry_can_be_imported_after_the_block(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with without_openvino_telemetry(), pytest.raises(ImportError):
        __import__("openvino_telemetry")
    assert "openvino_telemetry" not in sys.modules
    own = object()
    monkeypatch.setitem(sys.modules, "openvino_telemetry", own)
    with without_openvino_telemetry():
        assert sys.modules["openvino_telemetry"] is own
