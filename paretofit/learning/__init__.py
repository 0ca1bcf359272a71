"""Active learning: train a committee, explore by molecular dynamics, calibrate, select, label, and again."""
