"""Calls to other servers: how long they may take, and when they may be made again."""
