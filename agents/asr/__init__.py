"""Speech recognizers, one file or folder each; their interfaces (`protocols`), and the rate limits that they share."""
