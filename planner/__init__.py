"""What decides: imagination, search, budget and gate."""
