"""The server that an administrator hands out: set-up, people and their keys, the gate; no torch, no paramiko."""
