"""The network: torch only; no files, no device policy, no printing."""
