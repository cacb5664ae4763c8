"""The record of published claims: what they come to in committed tables."""
