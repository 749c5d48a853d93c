"""The embedded engine: continuous batching over the decoder's cache."""
