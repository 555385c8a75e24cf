"""What Concord keeps about external recognizers and models: requests, limits on calls, usage, and answers."""
