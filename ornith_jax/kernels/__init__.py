"""Attention that never holds the scores of a whole sequence: in plain JAX, and through a TPU kernel."""
