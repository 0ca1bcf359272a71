"""From a results table to pictures, words and a page; nothing here fits, and nothing needs LAMMPS."""
