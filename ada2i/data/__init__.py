"""Feature sets: import, write, open and read."""
