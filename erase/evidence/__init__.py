"""Packs of evidence: a verdict with all that it rests on, which others can check and recompute."""
