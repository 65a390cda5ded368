"""Bundles damaged at random: never another error than BundleError, never opened as something else."""

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
    """Write a manifest's bytes beside a copy of the graph and give the folder."""
    folder = tmp_path_factory.mktemp("fuzz") / "bundle"
    shutil.copytree(vif, folder)

    def write(text):
        (folder / MANIFEST).write_bytes(text)
        return folder

    return write


@pytest.fixture(scope="module")
def good(vif):
    """A good manifest's bytes."""
    return (vif / MANIFEST).read_bytes()


def opens(folder):
    """The manifest that was accepted, or None where BundleError refused it in one line."""
    try:
        return Bundle.open(folder).manifest
    except BundleError as error:
        message = str(error)
    assert "\n" not in message
    return None


def paths(value, prefix=()):
    """The keys to every value inside a JSON value."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield (*prefix, key)
        yield from paths(child, (*prefix, key))


def parent(value, keys):
    for key in keys[:-1]:
        value = value[key]
    return value


@settings(max_examples=200)
@given(data=st.data())
def test_flipped_bytes_never_open_as_another_bundle(data, damaged, good):
    text = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=3, unique=True)):
        text[place] ^= data.draw(st.integers(1, 255))
    # White space and the spelling of a number may change and mean the same.
    assert opens(damaged(bytes(text))) in (None, json.loads(good))


@given(data=st.data())
def test_truncated_manifests_never_open(data, damaged, good):
    whole = len(good.rstrip())
    assert opens(damaged(good[: data.draw(st.integers(0, whole - 1))])) is None


@given(text=st.binary(max_size=300))
def test_random_bytes_never_open(text, damaged):
    assert opens(damaged(text)) is None


def test_every_key_is_covered_by_the_manifests_own_hash(damaged, good):
    manifest = json.loads(good)
    for keys in paths(manifest):
        less = copy.deepcopy(manifest)
        del parent(less, keys)[keys[-1]]
        assert opens(damaged(json.dumps(less).encode())) is None, keys


@pytest.mark.parametrize("key", REQUIRED)
def test_required_keys_are_missed_even_where_the_hash_is_right(key, damaged, good):
    manifest = json.loads(good)
    del manifest[key]
    manifest[SELF_HASH] = manifest_sha256(manifest)
    assert opens(damaged(json.dumps(manifest).encode())) is None


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


@settings(max_examples=300)
@given(data=st.data(), value=any_json)
def test_forged_manifests_are_refused_or_usable(data, value, damaged, good):
    """With the right hash; what fusing needs is checked on opening, what `inspect` shows when it shows it."""
    manifest = json.loads(good)
    keys = data.draw(st.sampled_from(list(paths(manifest))))
    parent(manifest, keys)[keys[-1]] = value
    manifest[SELF_HASH] = manifest_sha256(manifest)
    folder = damaged(json.dumps(manifest).encode())
    if opens(folder) is None:
        return
    bundle = Bundle.open(folder)
    assert all(abs(number) < 2e6 for number in bundle.default_prompt)
    assert bundle.files.keys() == {GRAPH}
    for arguments in (["inspect", str(folder)], ["inspect", str(folder), "--json"]):
        assert run(arguments) in (0, 2)
