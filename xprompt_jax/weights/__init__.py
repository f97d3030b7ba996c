"""Where the weights of a frozen T5 come from."""
