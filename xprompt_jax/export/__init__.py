"""`t5x export`: a prompt as another program reads it, with its model card.

`exporting.py` is the command; `contents.py` is what is exported; `removal.py`
leaves pruned tokens out and measures what that changes; the others write the
card.
"""
