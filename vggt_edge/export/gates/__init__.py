"""Gates: what can be proven about a bundle without a phone."""
