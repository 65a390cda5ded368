"""The bundles in the package are those that `make ready-bundles` makes from its weights and their card."""

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

import ready_bundles
from tcmoa import load_weights
from tcmoa.weights import weights_hash
from tcmoa_export.bundle_export import graph_stem
from tcmoa_export.network import build_graph
from tcmoa_export.spec import make_spec
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.ready_bundles import READY_NAMES, READY_PRESET

RENEW = "run `make ready-bundles`"


@pytest.fixture(scope="module")
def model():
    return load_weights(READY_PRESET).eval()


@pytest.mark.parametrize("name", READY_NAMES)
def test_the_graph_is_made_from_the_weights(name, model):
    shipped = Bundle.open(name)
    spec = make_spec(model, ready_bundles.options_for(READY_NAMES[name]))
    made = build_graph(model, spec, graph_stem(model, spec), "any version")
    graph = onnx.load_from_string(shipped.read_graph()).graph
    found, expected = (
        {t.name: onnx.numpy_helper.to_array(t) for t in g.initializer} for g in (graph, made.graph)
    )
    assert list(found) == list(expected), RENEW
    for tensor_name, values in expected.items():
        # Another processor may fold to a neighboring number.
        tolerance = 2e-3 if values.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(
            found[tensor_name], values, rtol=tolerance, atol=tolerance * 1e-2, err_msg=RENEW, strict=True
        )
    del graph.initializer[:], made.graph.initializer[:]
    assert made.graph.SerializeToString() == graph.SerializeToString(), RENEW
    assert shipped.manifest["weights"] == {"sha256": weights_hash(model), "source": READY_PRESET}, RENEW


@pytest.mark.parametrize("name", READY_NAMES)
def test_the_figures_are_those_of_the_card(name):
    card = ready_bundles.CARD.read_text()
    found = ready_bundles.read_figures(card, READY_NAMES[name])
    assert Bundle.open(name).manifest["quality"] == found, RENEW


def test_a_card_without_the_row_is_refused():
    with pytest.raises(ValueError, match="no figures of nano for mff"):
        ready_bundles.read_figures("| task | | Qabf |\n|---|---|---|\n| vif | **nano** | 0.5 |\n", "mff")
