"""Signals that arrive while Ray starts or ends."""

import signal

import pytest

from raised_signals import raise_handled
from tcmoa_runtime.cluster import environment
from tcmoa_runtime.cluster.environment import held_stop_signals

utils = pytest.importorskip(
    "ray._private.utils", reason="ray is not installed; `pip install 'tcmoa[ray]'` runs this"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_at_the_end_and_the_handler_of_ray_is_not_used(number):
    seen = []
    set_handler = utils.set_sigterm_handler
    previous = signal.signal(number, lambda *_: seen.append("handled"))
    handler = signal.getsignal(number)
    try:
        with held_stop_signals():
            utils.set_sigterm_handler(lambda *_: seen.append("handler of Ray"))
            raise_handled(number)
            raise_handled(number)
            seen.append("started")
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, previous)
    assert seen == ["started", "handled"]
    assert utils.set_sigterm_handler is set_handler


def test_a_later_second_signal_interrupts_at_once(monkeypatch):
    monkeypatch.setattr(environment, "REPEAT_S", -1.0)
    seen = []

    def start():
        with held_stop_signals():
            raise_handled(signal.SIGINT)
            seen.append("first")
            raise_handled(signal.SIGINT)
            seen.append("second")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert seen == ["first"]
