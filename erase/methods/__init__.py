"""Erasure methods, one file each: `method: uce` in a pipeline is `UCE` in `uce.py`."""
