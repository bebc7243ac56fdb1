"""A copy of the index that a recommender reads, kept up to date by the change feed (docs/adr/0015)."""
