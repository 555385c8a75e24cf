"""The settings of a fleet, by what they are for; `agents.fleet.settings` has all of them."""
