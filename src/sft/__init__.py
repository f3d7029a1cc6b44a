"""Stage `sft`: supervised fine-tuning on dialogues (section 3.1)."""
