"""What looks after jobs and rows beside the stages: stuck and cancelled jobs, orphans, old rows."""
