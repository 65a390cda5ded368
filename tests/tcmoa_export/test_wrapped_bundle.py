"""Writing the graph of a wrapped network as a bundle, and reading it back."""

import json

import onnx
import pytest

from tcmoa_export.wrapped_bundle import WrappedDescription, write_wrapped_bundle
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.contract import Contract
from tcmoa_runtime.errors import BundleError, InputError, NoPromptError
from wrapped_pieces import HEIGHT, NETWORK, WIDTH, contract_of, two_layers, write_two_layers


def test_a_wrapped_bundle_says_what_it_holds(tmp_path):
    bundle = Bundle.open(write_two_layers(tmp_path / "b", y_channels=1))
    bundle.check()
    assert bundle.network == NETWORK
    assert bundle.contract == contract_of(y_channels=1)
    assert (bundle.has_prompt, bundle.preset, bundle.size) == (False, "two-layers", (HEIGHT, WIDTH))
    assert (bundle.tile_step, bundle.window_pixels, bundle.can_tile) == (8, 8, True)
    assert bundle.manifest["license"] == "MIT"
    assert bundle.manifest["graph"]["parameters"] > 0
    assert bundle.graph_name.startswith("wrapped_vif_two-layers_56x40_")
    metadata = {entry.key: entry.value for entry in onnx.load(bundle.graph_path).metadata_props}
    assert metadata["tcmoa.network"] == "two-layers"
    assert "tcmoa.prompt_default" not in metadata


def test_the_name_of_a_graph_tells_weights_apart(tmp_path):
    names = {
        Bundle.open(write_two_layers(tmp_path / str(i), seed=s)).graph_name for i, s in enumerate((0, 0, 1))
    }
    assert len(names) == 2


def test_the_result_of_the_check_is_recorded(tmp_path):
    bundle = Bundle.open(write_two_layers(tmp_path / "b", check=lambda bundle: {"worst": bundle.size[0]}))
    assert bundle.manifest["gate"] == {"worst": HEIGHT}


def test_a_failed_check_leaves_nothing(tmp_path):
    def fail(bundle):
        raise InputError("differs")

    with pytest.raises(InputError, match="differs"):
        write_two_layers(tmp_path / "b", check=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_of_another_contract_leaves_nothing(tmp_path):
    description = WrappedDescription(task="vif", contract=contract_of(batch=2), network=NETWORK)
    with pytest.raises(
        BundleError, match=r"input 'x' is uint8 \[1, 40, 56, 3\]; expected uint8 \[2, 40, 56, 3\]"
    ) as caught:
        write_wrapped_bundle(two_layers(contract_of()), description, tmp_path / "b")
    assert str(caught.value).startswith(f"{tmp_path / 'b'}: ")  # not the folder that is gone
    assert str(caught.value).endswith(" This network cannot be wrapped as it is.")
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_is_no_part_of_the_contract():
    for wrong in ({"prompts": 1}, {"grid": (1, 1)}, {"with_prompt": True}):
        values = {"grid": (0, 0), "prompts": 0, **wrong}
        with pytest.raises(ValueError, match="no prompt"):
            Contract(8, 8, with_control=False, **values)
    with pytest.raises(ValueError, match="has a prompt"):
        WrappedDescription(task="vif", contract=Contract(8, 8, (1, 1), 1), network=NETWORK)


def test_there_is_no_default_prompt(tmp_path):
    bundle = Bundle.open(write_two_layers(tmp_path / "b"))
    with pytest.raises(NoPromptError) as raised:
        _ = bundle.default_prompt
    assert str(raised.value) == (
        f"{tmp_path / 'b'}: this network has no prompt; expected a bundle of `tcmoa export`. "
        "Use the bundle of a TC-MoA model."
    )


def test_a_stretched_network_has_extremes(tmp_path):
    bundle = Bundle.open(write_two_layers(tmp_path / "b", stretches=1))
    bundle.check()
    assert [spec.name for spec in bundle.contract.inputs] == ["x", "y", "held_extremes"]
    assert [spec.name for spec in bundle.contract.outputs] == ["fused", "extremes"]
    assert not bundle.can_tile


FORGERIES = {
    "name": (
        lambda m: m["network"].update(name="a\nb"),
        "'network.name' is 'a\\nb'; expected 1 to 80 printable ASCII",
    ),
    "hash": (
        lambda m: m["network"].update(sha256="x"),
        "'network.sha256' is 'x'; expected 64 hexadecimal digits",
    ),
    "kind": (
        lambda m: m["network"].update(kind="other"),
        "'network.kind' is 'other'; expected 'tc-moa', 'wrapped'",
    ),
    "license": (
        lambda m: m["network"].update(license=1),
        "'network.license' is 1; expected a value of type str",
    ),
    "step": (lambda m: m.update(tile_step=0), "'tile_step' is 0; expected an integer from 1 to 64"),
    "fit": (lambda m: m.update(fit="crops"), "'fit' is 'crops'; expected 'pad', 'resize'"),
    "stretches": (lambda m: m["frame"].update(stretches=1), "'contract' does not match 'frame'"),
    "many stretches": (
        lambda m: m["frame"].update(stretches=9),
        "'frame.stretches' is 9; expected an integer from 0",
    ),
    "no network": (lambda m: m.pop("network"), "'preset' is None; expected a value of type str"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_manifest_is_refused(forgery, tmp_path):
    from tcmoa_runtime.bundle_write import write_manifest

    change, words = FORGERIES[forgery]
    folder = write_two_layers(tmp_path / "b")
    manifest = json.loads((folder / "bundle.json").read_bytes())
    change(manifest)
    write_manifest(folder, manifest)
    with pytest.raises(BundleError) as raised:
        Bundle.open(folder)
    assert words in str(raised.value)
