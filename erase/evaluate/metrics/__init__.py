"""Metrics on images and on sets of images."""
