"""What runs the graph of a bundle. One backend is one module; all offer what `backends.base.Backend` lists."""
