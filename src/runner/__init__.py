"""A pipeline's stages in sequence, and the making of one."""
