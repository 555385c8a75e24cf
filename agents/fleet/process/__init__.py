"""What the process as a whole is told: its limit of open files, and to give freed memory back."""
