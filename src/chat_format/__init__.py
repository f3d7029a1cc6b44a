"""Chats as token ids: chat formats, labels of trained answers, packed rows."""
