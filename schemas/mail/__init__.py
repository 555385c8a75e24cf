"""Reports that are sent by mail: addresses, and the row that says what became of each mail."""
