"""What Go modules that Kubernetes is built from say, kept in answers.jsonl."""
