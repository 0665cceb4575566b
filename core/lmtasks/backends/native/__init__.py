"""The native engine: continuous batching over a KV cache."""
