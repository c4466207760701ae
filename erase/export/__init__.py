"""What an edit ships as, one file each: `export: [patch, folder]` in a pipeline."""
