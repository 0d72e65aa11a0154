"""Fuzzing: every decoder of bytes that come from outside, on valid inputs that were damaged."""
