"""Training of the two members of a pair."""
