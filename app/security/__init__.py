"""Who may use the gateway: allowed host names and web pages, and a warning when other machines can reach it."""
