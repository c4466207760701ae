"""Scores, one file each: `score: [clip]` in a pipeline is `Clip` in `clip.py`."""
