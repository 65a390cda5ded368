"""Makes `benchmarks/` importable, and provides contenders with fake times and fake load of other programs."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Last: `tests/` holds a module of the same name as one there.
sys.path.append(str(ROOT / "benchmarks"))

from harness.gate import Usage  # noqa: E402
from harness.measure import CaseMeasurements, Loaded, summarize_case  # noqa: E402
from harness.plan import EAGER, Case  # noqa: E402
from harness.rounds import run_rounds  # noqa: E402
from tcmoa_runtime.errors import TcmoaError  # noqa: E402


class FakeMachine:
    """A clock that frames move, and foreign work that `noise` gives by contender and number of its sample."""

    def __init__(self, noise=lambda _name, _sample: 0.0):
        self.wall = self.busy = 0.0
        self.own = {}
        self.noise = noise
        self.order = []

    def runner(self, name, pid, ms):
        machine = self
        self.own[pid] = 0.0

        class Runner:
            samples = 0

            def __init__(self):
                self.pid = pid

            def run(self, frames):
                machine.order.append(name)
                times = [ms(self.samples) if callable(ms) else ms for _ in range(frames)]
                if any(time is None for time in times):
                    raise TcmoaError(f"{name}: its process ended (exit status 1)")
                seconds = sum(times) / 1e3
                machine.wall += seconds
                machine.own[pid] += 2 * seconds
                machine.busy += 2 * seconds + machine.noise(name, self.samples)
                self.samples += 1
                return times

        return Runner()

    def meter(self, pid):
        return Usage(self.wall, self.busy, self.own[pid])


def fake_rounds(ms, rounds=4, noise=lambda _name, _sample: 0.0, **options):
    """`ms` by contender, a number or a function of the sample; sample 0 is the frame that is not counted."""
    machine = FakeMachine(noise)
    runners = {name: machine.runner(name, pid, each) for pid, (name, each) in enumerate(ms.items())}
    measured = run_rounds(runners, rounds, meter=machine.meter, rest=0, **options)
    return measured, machine


def fake_case(ms, noise=lambda _name, _sample: 0.0, name="micro-112"):
    """Figures of a case as `measure_case` gives them."""
    case = Case(name, "micro", 112, 112, tuple(ms), 4)
    measured, _ = fake_rounds(ms, noise=noise)
    loaded = {each: Loaded(10.0, 5.0, True) for each in ms}
    raw = CaseMeasurements(measured, loaded, dict.fromkeys(ms, 100.0), dict.fromkeys(ms))
    made = {
        "flops": 10**9,
        "pair": "made up",
        "notes": {},
        "weights": "random",
        "export": {"seconds": 1.0, "peak_mb": 1.0, "parity": {"max_difference": 0, "differing": 0.0}},
    }
    return summarize_case(case, made, raw)


@pytest.fixture
def fake():
    """The functions above, and the baseline's name."""

    class Fake:
        rounds = staticmethod(fake_rounds)
        case = staticmethod(fake_case)
        eager = EAGER

    return Fake
