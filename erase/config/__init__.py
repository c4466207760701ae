"""Files that people write and bring, read as typed values: YAML, prompt sets, columns, declared sets."""
