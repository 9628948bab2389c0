"""What goes with other projects; nothing here is needed without them."""
