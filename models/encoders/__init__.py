"""Encoders turn what an entity sees into evidence about its latent state."""
