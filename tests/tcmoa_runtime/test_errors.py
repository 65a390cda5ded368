"""The error tree: exit codes, and the builtins that callers may catch instead."""

import pytest

from tcmoa_runtime import BundleError, InputError, MissingError, TcmoaError


@pytest.mark.parametrize(
    ("kind", "code", "builtin"),
    [
        (TcmoaError, 1, Exception),
        (InputError, 2, ValueError),
        (BundleError, 2, ValueError),
        (MissingError, 3, ImportError),
    ],
)
def test_each_error_has_its_exit_code_and_is_the_builtin_it_resembles(kind, code, builtin):
    assert kind.exit_code == code
    assert issubclass(kind, TcmoaError)
    assert issubclass(kind, builtin)


def test_a_refused_bundle_is_wrong_input():
    assert issubclass(BundleError, InputError)
    assert not issubclass(MissingError, InputError)
