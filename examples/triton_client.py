"""Fuse two images with a model that `tcmoa repository` wrote and Triton serves, over HTTP.

    python examples/triton_client.py x.png y.png -o fused.png --model nano-vif --url 127.0.0.1:8000

It needs `pip install 'tritonclient[http]'` and no tcmoa: the images are sent as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tritonclient import http


def fuse_files(
    client: http.InferenceServerClient, model: str, x: bytes, y: bytes, shift: float = 0.0
) -> bytes:
    """Fuse two encoded images of one size.

    Args:
        client: A client of the server.
        model: A model of the python backend.
        x: The first source, e.g. the bytes of a PNG file.
        y: The second source.
        shift: Beta of the prompt: above 0 favors x, below 0 favors y.

    Returns:
        The fused image as the bytes of a PNG file.
    """
    tensors = {
        "x_encoded": ("BYTES", np.array([x], np.object_)),
        "y_encoded": ("BYTES", np.array([y], np.object_)),
        "prompt_shift": ("FP32", np.full((1, 1, 1), shift, np.float32)),
    }
    inputs = []
    for name, (datatype, array) in tensors.items():
        tensor = http.InferInput(name, array.shape, datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    result = client.infer(model, inputs, outputs=[http.InferRequestedOutput("fused_png")])
    return bytes(result.as_numpy("fused_png")[0])


def main() -> None:
    """Read the arguments, fuse and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("x", type=Path)
    parser.add_argument("y", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="nano-vif")
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--shift", type=float, default=0.0)
    options = parser.parse_args()
    with http.InferenceServerClient(options.url) as client:
        fused = fuse_files(
            client, options.model, options.x.read_bytes(), options.y.read_bytes(), options.shift
        )
    options.out.write_bytes(fused)


if __name__ == "__main__":
    main()
