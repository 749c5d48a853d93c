"""Ahead-of-time compilation for accelerators that are not here: does it fit, how fast can it be."""
