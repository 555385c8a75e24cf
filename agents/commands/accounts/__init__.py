"""Commands for those who administer tenants."""
