"""Google Cloud Speech v2 as two recognizers: in chunks (`recognize`), or whole from a bucket (`batch_recognize`)."""
