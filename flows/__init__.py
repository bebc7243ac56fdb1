"""Prefect flows and the commands that need them."""
