"""What the HTTP service of a worker needs of its fleet: one module an area."""
