"""The two-stage episode: `propose` a scaffold, then `solve` the task under it. The only agent loop."""
