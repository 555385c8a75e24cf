"""Reports as PDF: what they say, how they are typeset, and the process in which they are made."""
