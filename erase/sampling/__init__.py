"""How images are sampled: prompts and seeds in, pictures out, on whatever device there is."""
