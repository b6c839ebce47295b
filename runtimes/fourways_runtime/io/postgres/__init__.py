"""PostgreSQL: connections, error translation, and binary COPY in both directions."""
