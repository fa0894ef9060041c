"""Three-class sentiment of English text: how it was trained, exported, and how its stored precision was chosen."""
