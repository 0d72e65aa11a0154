"""What flows: specs, frames, messages, topics and the catalog."""
