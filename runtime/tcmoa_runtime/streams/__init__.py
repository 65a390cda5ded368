"""Streams: two sources that are paired by time and fused into one output, with prompt control while they run."""
