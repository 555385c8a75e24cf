"""How words are written: tokens, numbers, digits and sounds that compare equal."""
