"""What learns: world models, training, export and evaluation."""
