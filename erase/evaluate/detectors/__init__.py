"""Detectors, one file each: `detector: {name: q16}` in a protocol is `Q16` in `q16.py`."""
