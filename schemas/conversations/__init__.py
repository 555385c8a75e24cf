"""Conversations of ElevenLabs' voice agents, each of which is a job: how it is named, and how far it is processed."""
