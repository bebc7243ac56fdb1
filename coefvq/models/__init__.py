"""The base models and the fused MLLM of the paper. Importing this package imports no torch."""
