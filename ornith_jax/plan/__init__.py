"""Ahead-of-time compilation for accelerators that are not there: does it fit, and how fast can it be."""
