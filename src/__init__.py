"""llamita: raises a chat model from raw text, the way the Llama 2 paper describes."""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trl's trainers report each start otherwise

__version__ = "0.1.0"
