"""Language models of a fleet: their settings, and how they are opened."""
