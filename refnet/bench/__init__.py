"""How fast refnet is, against the frameworks that it checks: race.py and what goes with them."""
