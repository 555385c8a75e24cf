"""What the transcribe stage needs: requests to recognizers behind a network, and where their answers are stored."""
