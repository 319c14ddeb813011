"""How good is it: data with known truth, metrics, protocols, reports."""
