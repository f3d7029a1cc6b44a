"""Several ranks: the process group, the device, and parts of a stage that are computed once."""
