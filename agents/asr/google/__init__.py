"""Google Cloud Speech v2: in pieces, or whole from a bucket."""
