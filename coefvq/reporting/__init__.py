"""What people read: plots, the HTML report, and the JSON files of the stages read back."""
