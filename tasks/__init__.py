"""Prefect tasks, each a few lines around a plain function, and the plain functions that know DVC and git."""
