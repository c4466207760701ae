"""Attacks, one a file: how somebody brings back what was erased, and how often it works."""
