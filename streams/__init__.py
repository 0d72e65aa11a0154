"""What moves: Kafka in, Kafka out."""
