"""The frozen T5: its sizes, layers, network and decoding."""
