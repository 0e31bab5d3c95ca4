"""A batch in shards: its rows in parts, whose gradients are added in an order that depends on their number alone."""
