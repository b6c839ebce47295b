"""Tables of many writers, each with its right outcome written down, in batch and as events."""
