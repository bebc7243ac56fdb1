"""Command line: thin functions that import what they need when they run."""
