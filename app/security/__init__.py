"""Who may ask: which names the gateway is called by, which web pages may use it, and what is said of an open door."""
