"""Reports: what happened to a job, and what a tenant did and used up in a time."""
