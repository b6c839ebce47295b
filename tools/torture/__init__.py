"""Tools that do their worst to what they test, and say what came of it."""
