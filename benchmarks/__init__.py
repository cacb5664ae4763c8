"""What is measured and how; each module is one command, prints a table and writes JSON."""
