"""Where rows come from: sources, chat format, packing, token shards."""
