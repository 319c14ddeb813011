"""Networks for phones: rewritten, checked for what a target cannot run, converted, quantized."""
