"""What `benchmarks/speed.py` measures with: gated samples of contenders in processes of their own, in turn."""
