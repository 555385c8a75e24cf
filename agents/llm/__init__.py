"""Language models that choose among the readings of recognizers where those disagree."""
