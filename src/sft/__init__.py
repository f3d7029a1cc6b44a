"""Stage: supervised fine-tuning on chats (paper, section 3.1)."""
