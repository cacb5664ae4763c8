"""Data sets and shifts: from a name to the two members' examples."""
