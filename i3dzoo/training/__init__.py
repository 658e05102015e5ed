"""Fine-tuning: recipes as data, a loop that can be killed and resumed, and what it reports."""
