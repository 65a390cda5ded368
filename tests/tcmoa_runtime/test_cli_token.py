"""Tokens of servers whose messages are JSON."""

import json

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed; `pip install 'tcmoa[serve]'` runs this")

FLEET = '[pairs.gate]\nbundle = "nano-vif"\nx = "simulated://x"\ny = "simulated://y"\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "nano-vif", "--host", "0.0.0.0"],
        ["stream", "nano-vif", "simulated://x", "simulated://y", "--page", "0.0.0.0:0"],
        ["fleet", "FILE", "--page", "0.0.0.0:0"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_token_that_nobody_would_see_is_not_generated(tcmoa, tmp_path, monkeypatch, arguments):
    if arguments[0] == "fleet":
        pytest.importorskip("ray", reason="ray is not installed; `pip install 'tcmoa[ray]'` runs this")
    (tmp_path / "fleet.toml").write_text(FLEET)
    monkeypatch.setenv("TCMOA_LOG_FORMAT", "json")
    monkeypatch.delenv("TCMOA_TOKEN", raising=False)
    outcome = tcmoa(*(str(tmp_path / "fleet.toml") if word == "FILE" else word for word in arguments))
    assert outcome.code == 2
    assert json.loads(outcome.err.splitlines()[-1])["message"] == (
        "token: none for 0.0.0.0; expected one, because messages in JSON hide a generated one. Set the environment "
        "variable TCMOA_TOKEN, or --token."
    )
