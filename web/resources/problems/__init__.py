"""The kinds of errors over HTTP, and the pages that explain them."""
