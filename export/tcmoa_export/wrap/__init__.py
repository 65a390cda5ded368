"""Wrapping fusion networks of others: an ONNX file or a PyTorch module becomes a bundle.

`plan` completes the conventions with what the network says, `build` composes the graph, `plain` computes the same in
NumPy around the original network, and `gate` compares the two.
"""
