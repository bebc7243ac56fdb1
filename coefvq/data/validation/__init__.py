"""Rules that a manifest has to meet, and the report of a check."""
