"""The probability of each reading: features, language statistics, trees, and the fitted parameters."""
