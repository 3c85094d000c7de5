"""vLLM as an engine: `vllm:PATH`. Not named for the package it drives, which it would shadow."""
