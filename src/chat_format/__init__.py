"""A chat as token ids: its format, what is trained, packed rows."""
