"""The learner: state, optimizer, step, data order, checkpoints, metrics."""
