"""The native engine: continuous batching, prefix sharing and prompt lookup over one KV cache."""
