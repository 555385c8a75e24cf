"""Statements in `.sql` files, one file a port, and the tables whose column lists are filled into them."""
