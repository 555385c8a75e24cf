"""Language models of a fleet, and how they are opened."""
