"""What draws on this machine: devices and their memory, and the plans by which a model fits them."""
