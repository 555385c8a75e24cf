"""Corrections of transcripts by people: changes, versions, and the queue of disputed words that reviewers decide."""
