"""Language models that choose among what recognizers heard."""
