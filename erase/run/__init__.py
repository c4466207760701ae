"""A run: its pipeline file, its steps, and the folder that keeps what each step left."""
