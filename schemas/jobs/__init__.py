"""A job: its database rows, the outcomes of stages, the state machine of its run, and its published status. No I/O."""
