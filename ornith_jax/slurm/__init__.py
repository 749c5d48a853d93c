"""Slurm: from an experiment and a site to plain sbatch files, and what runs inside them. No jax, but for the fit."""
