"""What is written down of jobs: their records, events and pictures, and how long they stay."""
