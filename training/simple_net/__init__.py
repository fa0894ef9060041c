"""The smallest tensor model: 2 numbers in, 2 numbers out."""
