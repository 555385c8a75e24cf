"""The doubles of corrections."""
