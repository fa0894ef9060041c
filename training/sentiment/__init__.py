"""Three-class sentiment of English text: training, export, and the choice of the stored precision."""
