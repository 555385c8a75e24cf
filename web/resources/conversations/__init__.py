"""Conversations of voice agents: asked for, followed, cancelled, listed; and the hints of ElevenLabs' webhooks."""
