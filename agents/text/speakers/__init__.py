"""Who says which word: by channel, by voice, and by recognizers' labels."""
