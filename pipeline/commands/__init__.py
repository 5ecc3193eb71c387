"""What each command takes and does: its arguments, the stages it calls, what it says; its value is the exit code."""
