"""What this machine can do, and how long things take."""
