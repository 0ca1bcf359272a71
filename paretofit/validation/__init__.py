"""What a potential is worth beyond its test errors."""

from paretofit.validation.md_speed import MdSpeed, calculator_speed, md_speed

__all__ = ["MdSpeed", "calculator_speed", "md_speed"]
