"""What a potential is worth beyond its test errors."""

from paretofit.validation.md_speed import MdSpeed, md_speed, network_speed

__all__ = ["MdSpeed", "md_speed", "network_speed"]
