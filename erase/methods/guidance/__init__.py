"""What the methods share that act while an image is sampled."""
