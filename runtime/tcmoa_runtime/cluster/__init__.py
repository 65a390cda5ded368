"""What everything that runs on Ray shares: a session, the check of its nodes, and bundles that reach the nodes."""
