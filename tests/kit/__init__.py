"""What tests share: worlds, rigs, builders, servers and fixtures; no test is in here."""
