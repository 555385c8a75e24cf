"""What the intake stage needs: the order in which recordings are fetched, checks of options, and the rows of a job."""
