"""What should exist now: pure decisions, without I/O, clock or randomness."""
