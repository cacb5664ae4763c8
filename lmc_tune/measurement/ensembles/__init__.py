"""What an ensemble comes to: its members, averages of their weights, and their predictions together."""
