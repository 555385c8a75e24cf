"""Conversations of voice agents: they are asked of ElevenLabs through its SDK, and become jobs of the fleet."""
