"""llamita: raises a chat model from raw text, the way the Llama 2 paper describes."""

__version__ = "0.1.0"
