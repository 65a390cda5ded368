"""What the graph of a bundle may hold: reading ONNX files and checking them before a library sees them."""
