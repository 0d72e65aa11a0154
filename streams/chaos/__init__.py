"""Faults against the running loop, and a checker that reads only topics and files."""
