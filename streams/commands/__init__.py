"""The commands of `rehearse`, one module per group."""
