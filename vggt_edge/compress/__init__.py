"""What decides how a network is quantized; what runs it is in ``model``."""
