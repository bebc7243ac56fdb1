"""A toy world whose truth is known: synthetic videos, and simulated re-uploads of real ones."""
