"""What the servers are asked to run. Each module is one application or a family of small ones."""
