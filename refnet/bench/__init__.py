"""How fast refnet is, against the frameworks that it checks: prepare.py, race.py and what goes with them."""
