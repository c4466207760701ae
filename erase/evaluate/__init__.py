"""Paired images before and after an edit, their scores, and the pictures and tables of them."""
