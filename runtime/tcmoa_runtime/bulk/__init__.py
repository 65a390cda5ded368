"""Fusing archives of pairs on Ray Data: folders, object stores, Parquet files and WebDataset tar files."""
