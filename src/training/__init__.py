"""What every trainer shares: fine-tuning on packed rows, tracking, engines, ranks."""
