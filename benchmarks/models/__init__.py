"""Twenty models of many exporters, from the file to the first answer."""
