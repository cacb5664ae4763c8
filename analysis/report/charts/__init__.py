"""How the report draws: one style, and the charts that several sections share."""
