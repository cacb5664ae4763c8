"""Which cells are worth running: pure functions of a space and of what is known of its cells."""
