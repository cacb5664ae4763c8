"""The record of published claims, and whether committed tables support them."""
