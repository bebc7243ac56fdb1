"""What the index's database keeps of a stream: its positions, the newest content of each video, dead events."""
