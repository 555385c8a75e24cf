"""Work that is claimed as rows, by any number of workers."""
