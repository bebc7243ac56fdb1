"""The cascade: curves by counting, the policy, and the search for its thresholds. Pure numpy."""
