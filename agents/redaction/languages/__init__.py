"""Languages in which personal data are found: a file of words each."""
