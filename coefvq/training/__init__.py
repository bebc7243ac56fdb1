"""Fine-tuning of the base models and the MLLM."""
