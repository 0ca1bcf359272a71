"""New structures out of a few: augmentation, entropy-maximised generation, filters."""
