"""The live page: a running stream shown, measured and steered in a browser."""
