"""Pure simulators that answer actions with sensor readings."""
