"""The audit of a kernel list, against numbers counted by hand."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from micro_model import scrambled
from tcmoa import Sizes
from tcmoa_export.engines.audit import NUM_LARGEST, audit, by_scope
from tcmoa_export.engines.gpus import GPUS, Gpu
from tcmoa_export.engines.graph_summary import summarize_graph
from tcmoa_export.engines.kernels import AuditError, Kernel, TensorView
from tcmoa_export.graph_builder import GraphBuilder
from tcmoa_export.network import build_graph
from tcmoa_export.precision import lower
from tcmoa_export.spec import make_spec
from tcmoa_runtime.contract import TensorSpec
from tcmoa_runtime.options.export import ExportOptions

TYPES = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16"}


def weight(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def small_graph(precision):
    """Return a graph of one attention (2 windows of 4 tokens, C = 6, one head), a float32 product and a convolution."""
    graph = GraphBuilder()
    with graph.scope("encoder.0"), graph.scope("attention"):
        normed = graph.layer_norm("tokens", 6, 1e-6)  # [8, 6]
        q, k, v = graph.split(graph.linear(normed, weight(6, 18)), (6, 6, 6))
        q, v = (graph.reshape(part, 2, 4, 6) for part in (q, v))
        k = graph.transpose(graph.reshape(k, 2, 4, 6), 0, 2, 1)
        with graph.float32():
            logits = graph.op("MatMul", q, k)  # [2, 4, 4]
        shares = graph.op("Softmax", logits, axis=-1)
        with graph.float32():
            mixed = graph.op("MatMul", shares, v)  # [2, 4, 6]
        change = graph.linear(graph.reshape(mixed, 8, 6), weight(6, 6), weight(6))
        tokens = graph.residual("tokens", change)
    with graph.scope("router"), graph.float32():
        logits = graph.linear(tokens, weight(6, 2))  # [8, 2]
        logits = graph.add(logits, graph.op("Relu", logits))
    with graph.scope("tail"):
        image = graph.reshape(logits, 1, 1, 4, 4)
        image = graph.op("Conv", image, graph.floats(weight(3, 1, 2, 2), "kernel"), strides=[2, 2])
    with graph.float32():
        graph.output("Add", "y", image, graph.scalar(0.5))
    spec = TensorSpec("tokens", "float32", (8, 6)), TensorSpec("y", "float32", (1, 3, 2, 2))
    return lower(graph.build("small", spec[:1], spec[1:], "0"), precision)


FLOPS = {
    "encoder.0/attention/MatMul": 2 * 8 * 6 * 18,
    "encoder.0/attention/MatMul.1": 2 * 2 * 4 * 6 * 4,
    "encoder.0/attention/MatMul.2": 2 * 2 * 4 * 4 * 6,
    "encoder.0/attention/MatMul.3": 2 * 8 * 6 * 6,
    "router/MatMul": 2 * 8 * 6 * 2,
    "tail/Conv": 2 * 3 * 2 * 2 * 4,
}


def constants_of(model):
    return sum(len(t.raw_data) for t in model.graph.initializer)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_operations_and_products_of_a_known_graph(precision):
    model = small_graph(precision)
    onnx.checker.check_model(model, full_check=True)
    summary = summarize_graph(model)
    assert summary.flops == FLOPS
    assert summary.attentions == {
        "encoder.0/attention/Softmax": {"encoder.0/attention/MatMul.1", "encoder.0/attention/MatMul.2"}
    }
    # The attention's products only accumulate in float32.
    others = FLOPS.keys() - {"encoder.0/attention/MatMul.1", "encoder.0/attention/MatMul.2"}
    assert summary.float32 == (others if precision == "fp32" else {"router/MatMul"})


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_minimum_bytes_of_a_known_graph(precision, size):
    model = small_graph(precision)
    numbers = 8 * 6
    attention = (
        2 * numbers + 4 * numbers + 4 * numbers + 2 * numbers + numbers
    )  # norm, qkv, attend, out, residual
    # The router reads the tokens in 16 bits and writes float32; the other float32 nodes are fused into it.
    router = size * numbers + 4 * 16
    convolution = 16 + 12
    counted = size * attention + router + size * convolution
    assert summarize_graph(model).min_bytes == counted + constants_of(model)


SHALLOW = {"encoder": Sizes(64, 2, 2, 64, 4, 2), "decoder": Sizes(64, 2, 2, 64, 2, 2)}
DEEP = {"encoder": Sizes(64, 4, 2, 64, 4, 2), "decoder": Sizes(64, 2, 2, 64, 4, 2)}
"""Two more blocks, with the same TC-MoAs: those are after blocks 1, 5, ..."""


@pytest.mark.parametrize(
    ("stage", "precision", "bytes_per_number"),
    [("encoder", "fp32", 4), ("encoder", "fp16", 2), ("encoder", "bf16", 2), ("decoder", "fp16", 2)],
)
def test_a_block_moves_at_least_26_numbers_per_token_and_channel(stage, precision, bytes_per_number):
    counted = []
    for sizes in (SHALLOW[stage], DEEP[stage]):
        model = scrambled(sizes)
        graph = build_graph(
            model,
            make_spec(model, ExportOptions(task="vif", size=(112, 224), precision=precision)),
            "test",
            "0",
        )
        counted.append(summarize_graph(graph).min_bytes - constants_of(graph))
    sources = 2 if stage == "encoder" else 1  # after its last TC-MoA the decoder computes x only
    numbers = sources * (112 // 8) * (224 // 8) * 64
    assert counted[1] - counted[0] == 2 * 26 * numbers * bytes_per_number


def test_float32_parts_of_a_bf16_graph():
    model = scrambled(DEEP["decoder"])
    for precision in ("fp16", "bf16"):
        graph = build_graph(
            model,
            make_spec(model, ExportOptions(task="vif", size=(112, 112), precision=precision)),
            "test",
            "0",
        )
        float32 = summarize_graph(graph).float32
        assert ("head/Conv" in float32) == ("decoder_embed/MatMul" in float32) == (precision == "bf16")
        assert {"encoder_moa.0/MatMul", "tail/MatMul"} <= float32
        assert not {n for n in float32 if n.startswith(("encoder.", "decoder."))}


# --- kernels compared with a graph ---


def tensor(shape, precision, name="t"):
    return TensorView(name, shape, TYPES[precision])


def kernels(precision):
    """Return the kernels that the small graph is built into."""
    low, full = precision, "fp32"
    a = "encoder.0/attention/"
    return [
        Kernel(
            "__myl_CastMean",
            "kgen",
            (tensor((8, 6), full),),
            (),
            (tensor((8, 6), low),),
            (f"{a}LayerNormalization",),
        ),
        Kernel(
            "qkv",
            "gemm",
            (tensor((8, 6), low),),
            (tensor((6, 18), low),),
            (tensor((8, 18), low),),
            (f"{a}MatMul", f"{a}Split"),
        ),
        Kernel(
            "_gemm_mha_v2",
            "kgen",
            (tensor((2, 4, 6), low),) * 3,
            (),
            (tensor((8, 6), low),),
            (f"{a}MatMul.2", f"{a}MatMul.2/{low}", f"{a}Softmax/fp32", f"{a}Softmax", f"{a}MatMul.1"),
        ),
        Kernel(
            "__myl_FcAddAdd",
            "runtime_fusion",
            (tensor((8, 6), full), tensor((8, 6), low)),
            (tensor((6,), low), tensor((6, 6), low)),
            (tensor((8, 6), full),),
            (f"{a}MatMul.3", f"{a}Add", f"{a}Add.1"),
        ),
        Kernel(
            "router",
            "gemm",
            (tensor((8, 6), full),),
            (tensor((6, 2), full), tensor((1,), full)),
            (tensor((8, 2), full),),
            ("router/MatMul",),
        ),
        Kernel(
            "conv",
            "correlation",
            (tensor((1, 1, 4, 4), low),),
            (tensor((3, 1, 2, 2), low),),
            (tensor((1, 3, 2, 2), full),),
            ("tail/Conv", "y"),
        ),
    ]


QKV, ATTEND, PROJECT, ROUTER, CONV = range(1, 6)


def small_audit(precision, changed=None):
    return audit(changed or kernels(precision), summarize_graph(small_graph(precision)), precision)


def test_a_correct_list_passes():
    for precision in ("fp32", "fp16", "bf16"):
        report = small_audit(precision)
        assert (report.unfused, report.wrong_precision) == ((), ())
    assert report.precisions == {"bf16": 4, "fp32": 2}
    assert small_audit("fp32").precisions == {"fp32": 6}


def parts_of(attend, *groups):
    names = [tuple(n for n in attend.nodes if any(n.endswith(end) for end in group)) for group in groups]
    return [dataclasses.replace(attend, name=f"part{i}", nodes=nodes) for i, nodes in enumerate(names)]


@pytest.mark.parametrize(
    "groups",
    [
        (["MatMul.1"], ["Softmax"], ["MatMul.2"]),
        (["MatMul.1", "Softmax"], ["MatMul.2"]),
        (["MatMul.1"], ["Softmax", "MatMul.2"]),
        (["MatMul.1", "MatMul.2"], ["Softmax"]),
    ],
    ids=str,
)
def test_an_attention_in_parts_is_unfused(groups):
    listed = kernels("fp16")
    listed[ATTEND : ATTEND + 1] = parts_of(listed[ATTEND], *groups)
    report = small_audit("fp16", listed)
    assert report.unfused == ("encoder.0/attention/Softmax",)
    assert (report.to_dict()["attentions"], report.to_dict()["fused_attentions"]) == (1, 0)


def test_an_attention_that_no_kernel_computes_is_unfused():
    listed = kernels("fp16")
    del listed[ATTEND]
    assert small_audit("fp16", listed).unfused == ("encoder.0/attention/Softmax",)


def to(kernel, precision):
    def converted(tensors):
        return tuple(dataclasses.replace(t, dtype=TYPES[precision]) for t in tensors)

    return dataclasses.replace(
        kernel,
        inputs=converted(kernel.inputs),
        constants=converted(kernel.constants),
        outputs=converted(kernel.outputs),
    )


@pytest.mark.parametrize("asked", ["fp16", "bf16"])
@pytest.mark.parametrize("which", [QKV, ATTEND, PROJECT, CONV])
def test_products_in_float32_are_reported(which, asked):
    listed = kernels(asked)
    listed[which] = to(listed[which], "fp32")
    assert small_audit(asked, listed).wrong_precision == (f"{listed[which].name} reads fp32, not {asked}",)


def test_a_float32_product_in_16_bits_is_reported():
    listed = kernels("fp16")
    listed[ROUTER] = to(listed[ROUTER], "fp16")
    assert small_audit("fp16", listed).wrong_precision == ("router reads fp16, not fp32",)


def test_a_norm_may_read_any_precision():
    listed = kernels("fp16")
    assert listed[0].precision == "fp32"
    assert not small_audit("fp16", listed).wrong_precision


def test_foreign_and_empty_lists_are_refused():
    summary = summarize_graph(small_graph("fp16"))
    foreign = dataclasses.replace(kernels("fp16")[QKV], nodes=("layer1/MatMul",))
    for listed, words in (([foreign], "built from another graph"), ([], "lists no kernels")):
        with pytest.raises(AuditError, match=words) as error:
            audit(listed, summary, "fp16")
        assert "\n" not in str(error.value)


def test_operations_count_for_the_kernel_that_computes_them():
    """An earlier kernel that prepares an operand lists the product, too."""
    listed = kernels("fp16")
    first = Kernel(
        "__myl_Tran",
        "kgen",
        (tensor((8, 6), "fp16"),),
        (),
        (tensor((6, 8), "fp16"),),
        ("encoder.0/attention/MatMul", "tail/Conv"),
    )
    assert small_audit("fp16", [first, *listed]).flops() == [
        0,
        0,
        FLOPS["encoder.0/attention/MatMul"],
        FLOPS["encoder.0/attention/MatMul.1"] + FLOPS["encoder.0/attention/MatMul.2"],
        FLOPS["encoder.0/attention/MatMul.3"],
        FLOPS["router/MatMul"],
        FLOPS["tail/Conv"],
    ]


NODES = [*FLOPS, "encoder.0/attention/Softmax", "tail/Add", "nowhere/MatMul"]
LISTED = st.builds(
    Kernel,
    st.sampled_from(["__myl_FcAdd", "__myl_Tran", "_gemm_mha_v2"]),
    st.sampled_from(["kgen", "gemm", "correlation"]),
    st.lists(
        st.builds(
            TensorView,
            st.just("t"),
            st.tuples(st.integers(0, 99)),
            st.sampled_from([*TYPES.values(), "Int32"]),
        ),
        max_size=3,
    ).map(tuple),
    st.just(()),
    st.just((TensorView("o", (3, 3), "Half"),)),
    st.lists(st.sampled_from(NODES), max_size=5).map(tuple),
)
SUMMARIES = {p: summarize_graph(small_graph(p)) for p in TYPES}


@given(st.lists(LISTED, max_size=6), st.sampled_from(list(TYPES)))
def test_every_operation_is_counted_once(listed, precision):
    whole = Kernel("rest", "kgen", (), (), (), tuple(FLOPS))
    for order in ([*listed, whole], [whole, *listed]):
        assert sum(audit(order, SUMMARIES[precision], precision).flops()) == sum(FLOPS.values())


@given(st.lists(LISTED, max_size=6), st.sampled_from(GPUS))
def test_a_bound_covers_bytes_and_operations(listed, gpu):
    report = audit([*kernels("fp16"), *listed], SUMMARIES["fp16"], "fp16")
    bound = report.bound_ms(gpu) * (1 + 1e-9)
    assert bound >= report.bytes_moved / gpu.bandwidth * 1e3
    assert bound >= sum(report.flops()) / max(gpu.half, gpu.fp32) * 1e3
    slower = dataclasses.replace(gpu, bandwidth=gpu.bandwidth / 2)
    assert report.bound_ms(slower) >= report.bound_ms(gpu)


def test_the_bound_of_two_kernels_by_hand():
    gpu = Gpu("test", bandwidth=1e6, fp32=1e6, half=4e6, int8=8e6, fp8=None, source="none")
    # 1728 operations at 4e6/s are 432 us, 8*6 + 6*18 + 8*18 = 300 halves at 1e6 bytes/s are 600 us.
    # 192 operations at 1e6/s are 192 us, 8*6 + 6*2 + 1 + 8*2 = 77 floats are 308 us.
    listed = kernels("fp16")
    bound = small_audit("fp16", [listed[QKV], listed[ROUTER]]).bound_ms(gpu)
    assert bound == pytest.approx(0.600 + 0.308)
    # With ten times the bandwidth 60 us and 30.8 us are less than what the operations take.
    fast = dataclasses.replace(gpu, bandwidth=1e7)
    assert small_audit("fp16", [listed[QKV], listed[ROUTER]]).bound_ms(fast) == pytest.approx(0.432 + 0.192)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda g: g.name)
def test_datasheets_are_plausible(gpu):
    assert 1e11 < gpu.bandwidth < 1e13
    assert 1 < gpu.half / gpu.fp32 <= 16
    assert gpu.peak("fp16") == gpu.peak("bf16") == gpu.half
    assert gpu.peak("fp32") == gpu.peak("none") == gpu.fp32
    assert gpu.source


def test_the_json_is_plain_and_consistent():
    listed = [*kernels("fp16"), *[Kernel("x", "kgen", (), (), (tensor((2,), "fp16"),), ())] * NUM_LARGEST]
    report = small_audit("fp16", listed)
    values = report.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["kernels"] == len(values["list"]) == len(listed)
    assert values["kernels"] == sum(values["precisions"].values()) == sum(values["kinds"].values())
    assert values["kernels"] == sum(scope["kernels"] for scope in values["by_scope"].values())
    assert values["bytes_moved"] == sum(entry["bytes"] for entry in values["list"])
    assert values["bytes_moved"] == sum(scope["bytes"] for scope in values["by_scope"].values())
    assert values["bytes_moved"] == sum(k.bytes for k in listed)
    assert values["constant_bytes"] == sum(k.constant_bytes for k in listed)
    assert values["flops"] == sum(entry["flops"] for entry in values["list"]) == sum(FLOPS.values())
    assert (values["attentions"], values["fused_attentions"]) == (1, 1)
    assert values["minimum_bytes"] == SUMMARIES["fp16"].min_bytes
    assert values["kinds"] == {"attention": 1, "convolution": 1, "matmul": 3, "normalize": 1, "other": 10}
    sizes = [entry["bytes"] for entry in values["largest"]]
    assert sizes == sorted((k.bytes for k in listed), reverse=True)[:NUM_LARGEST]
    assert values["bounds"].keys() == {gpu.name for gpu in GPUS}
    qkv = values["list"][QKV]
    assert qkv == {
        "name": "qkv",
        "kind": "matmul",
        "precision": "fp16",
        "bytes": 600,
        "flops": 1728,
        "inputs": [{"shape": [8, 6], "type": "Half"}],
        "constants": [{"shape": [6, 18], "type": "Half"}],
        "outputs": [{"shape": [8, 18], "type": "Half"}],
        "nodes": ["encoder.0/attention/MatMul", "encoder.0/attention/Split"],
    }


def test_a_kernel_belongs_to_the_scope_of_most_of_its_nodes():
    listed = kernels("fp16")
    mixed = dataclasses.replace(listed[QKV], nodes=("tail/Add", "router/MatMul", "tail/Reshape"))
    assert by_scope([mixed, listed[ROUTER], dataclasses.replace(mixed, nodes=())]) == {
        "tail": {"kernels": 1, "bytes": 600},
        "router": {"kernels": 1, "bytes": 308},
        "unnamed": {"kernels": 1, "bytes": 600},
    }
