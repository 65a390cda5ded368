"""Randomly damaged manifests: they raise BundleError only, and never open as another bundle."""

import copy
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcmoa_runtime import Bundle, BundleError
from tcmoa_runtime.bundle import GRAPH, MANIFEST
from tcmoa_runtime.cli import run
from tcmoa_runtime.manifest import SELF_HASH, manifest_sha256

REQUIRED = (
    *("format", "format_version", "task", "preset", "precision", "channel_order", "frame", "fit", "files"),
    *("token_pixels", "prompt_default", "contract", "graph"),
)


@pytest.fixture(scope="module")
def damaged(vif, tmp_path_factory):
    """Function that writes the bytes of a manifest beside a copy of the graph and returns the folder."""
    folder = tmp_path_factory.mktemp("fuzz") / "bundle"
    shutil.copytree(vif, folder)

    def write(text):
        (folder / MANIFEST).write_bytes(text)
        return folder

    return write


@pytest.fixture(scope="module")
def valid(vif):
    """Bytes of a valid manifest."""
    return (vif / MANIFEST).read_bytes()


def open_or_refuse(folder):
    """Return the bundle that was accepted, None if BundleError refused it in one line."""
    try:
        return Bundle.open(folder)
    except BundleError as error:
        message = str(error)
    assert "\n" not in message
    return None


def open_manifest(folder):
    """Return the manifest that was accepted, None if BundleError refused it in one line."""
    bundle = open_or_refuse(folder)
    return None if bundle is None else bundle.manifest


def paths(value, prefix=()):
    """Yield the keys that lead to each value inside a JSON value."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield (*prefix, key)
        yield from paths(child, (*prefix, key))


def parent(value, keys):
    """Return the object or list that holds the value at `keys`."""
    for key in keys[:-1]:
        value = value[key]
    return value


@settings(max_examples=200)
@given(data=st.data())
def test_flipped_bytes_never_open_as_another_bundle(data, damaged, valid):
    text = bytearray(valid)
    for index in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=3, unique=True)):
        text[index] ^= data.draw(st.integers(1, 255))
    # Other white space or another notation of a number can give the same manifest.
    assert open_manifest(damaged(bytes(text))) in (None, json.loads(valid))


@given(data=st.data())
def test_truncated_manifests_never_open(data, damaged, valid):
    whole = len(valid.rstrip())
    assert open_manifest(damaged(valid[: data.draw(st.integers(0, whole - 1))])) is None


@given(text=st.binary(max_size=300))
def test_random_bytes_never_open(text, damaged):
    assert open_manifest(damaged(text)) is None


def test_the_hash_covers_every_key(damaged, valid):
    manifest = json.loads(valid)
    for keys in paths(manifest):
        reduced = copy.deepcopy(manifest)
        del parent(reduced, keys)[keys[-1]]
        assert open_manifest(damaged(json.dumps(reduced).encode())) is None, keys


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_required_key_is_refused_although_the_hash_is_correct(key, damaged, valid):
    manifest = json.loads(valid)
    del manifest[key]
    manifest[SELF_HASH] = manifest_sha256(manifest)
    assert open_manifest(damaged(json.dumps(manifest).encode())) is None


any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.just(10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(data=st.data(), value=any_json)
def test_forged_manifests_are_refused_or_usable(data, value, damaged, valid):
    """The hash is correct. Opening checks what fusing needs; `inspect` checks what it shows."""
    manifest = json.loads(valid)
    keys = data.draw(st.sampled_from(list(paths(manifest))))
    parent(manifest, keys)[keys[-1]] = value
    manifest[SELF_HASH] = manifest_sha256(manifest)
    folder = damaged(json.dumps(manifest).encode())
    bundle = open_or_refuse(folder)
    if bundle is None:
        return
    assert all(abs(number) < 2e6 for number in bundle.default_prompt)
    assert bundle.files.keys() == {GRAPH}
    for arguments in (["inspect", str(folder)], ["inspect", str(folder), "--json"]):
        assert run(arguments) in (0, 2)
