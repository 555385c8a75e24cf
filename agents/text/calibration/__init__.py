"""How probable each reading is: evidence, language statistics, trees, and the fitted calibration."""
