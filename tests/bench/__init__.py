"""Other stream processors on the aligner's work: `make bench-peers`."""
