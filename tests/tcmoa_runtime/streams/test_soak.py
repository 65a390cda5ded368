"""The soak of `make soak` finds what grows; CI runs it for two minutes beside the tests."""

import pytest

from soak import Sample, judge

STEADY = [Sample(100.0 + number % 3, 20 + number % 2, 12) for number in range(120)]
GROWING = {
    "memory": [Sample(100.0 + 0.5 * number, 20, 12) for number in range(120)],
    "descriptors": [Sample(100.0, 20 + number // 5, 12) for number in range(120)],
    "threads": [Sample(100.0, 20, 12 + number // 5) for number in range(120)],
}


def test_what_stays_is_good_also_after_a_warm_up():
    assert judge([Sample(50.0 + number, 10, 6) for number in range(40)] + STEADY)["good"]


@pytest.mark.parametrize("what", GROWING)
def test_what_grows_is_not(what):
    assert not judge(GROWING[what])["good"]
