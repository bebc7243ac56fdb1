"""Faster scoring without another model: a list of switches that swap modules of a built network.

transformers' forward code stays in charge. Where a private operation of torch is missing, the module falls back to
the plain one. ``switches.prepare`` turns switches on; docs/performance.md has what each of them gains.
"""
