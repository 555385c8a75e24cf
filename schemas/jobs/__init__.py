"""A job: its rows, what a stage asks for, the state machine of its run, and its published status. Pure, no I/O."""
