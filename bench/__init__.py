"""How fast and how right, measured: nothing here is imported by the fleet."""
