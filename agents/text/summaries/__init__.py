"""What summaries are made of: utterances with ids, citations that hold, quotations. Pure functions."""
