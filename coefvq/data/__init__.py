"""Import, probe, decode, validate, split and feed videos."""
