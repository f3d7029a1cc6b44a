"""What the commands `init`, `show` and `schema` do; `cli.py` declares them."""
