"""How good a bundle is, judged as a simulator engineer judges a simulator."""
