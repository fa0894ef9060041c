"""Who may use the gateway: by which host names, from which web pages; and a warning when there are no keys."""
