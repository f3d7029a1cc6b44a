"""Models: sizes of Llama, loading, checking and saving in Hugging Face's layout, LoRA, reward models."""
