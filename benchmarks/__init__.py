"""What is measured and how. Each module is one command, which prints a table and writes JSON."""
