"""Speech recognizers, one file or folder each; what each must do (`protocols`), and the rate limits that they share."""
