"""Two sources in, one fused stream out: sources, pairing by time, the pipeline, sinks, live control."""
