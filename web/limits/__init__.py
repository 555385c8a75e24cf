"""How many requests each API key may send, and how many it has sent."""
