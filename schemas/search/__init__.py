"""What transcripts are searched by: passages of them, and what is asked of these."""
