"""The harness of `benchmarks/speed.py`: contenders in their own processes, in turn, with a check of other load."""
