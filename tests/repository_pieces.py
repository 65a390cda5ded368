"""Bundles for tests of model repositories, and configurations as Triton parses them."""

import warnings

from google.protobuf import text_format

from tcmoa_runtime import Bundle
from tcmoa_runtime.alignment import MANIFEST_KEY, Alignment
from tcmoa_runtime.bundle_write import derive_bundle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of an older protobuf, which wrote the module
    from tritonclient.grpc import model_config_pb2

MATRIX = ((1.02, 0.03, -4.5), (-0.02, 0.99, 3.25), (1e-4, -5e-5, 1.0))


def write_aligned(bundle, out):
    """Copy a bundle, with an alignment of y; return the path."""
    found = Alignment(
        "y", MATRIX, model="homography", residual_px=0.25, score_before=0.1, score_after=0.4, pairs=12, seed=0
    )
    derive_bundle(Bundle.open(bundle), out, {MANIFEST_KEY: found.to_json()})
    return out


def config_of(folder):
    """Parse config.pbtxt as Triton does; a field that `ModelConfig` does not have is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text("ascii"), model_config_pb2.ModelConfig())


def tensors_of(entries):
    """Tensors of a configuration by name: type and dims."""
    name_of = model_config_pb2.DataType.Name
    return {entry.name: (name_of(entry.data_type), tuple(entry.dims)) for entry in entries}


def parameters_of(config):
    return {key: value.string_value for key, value in config.parameters.items()}
