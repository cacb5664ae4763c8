"""The run folder: tables, their columns, and what a sweep says of itself. No torch."""
