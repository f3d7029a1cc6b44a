"""Figures of the Llama 2 paper (arXiv 2307.09288) that the report shows beside those of a run."""

from __future__ import annotations

REWARD_ACCURACY = {
    "helpfulness": {
        "accuracy": 0.632,
        "significantly_better": 0.807,
        "better": 0.675,
        "slightly_better": 0.609,
        "negligibly_better": 0.547,
    },
    "safety": {
        "accuracy": 0.645,
        "significantly_better": 0.943,
        "better": 0.763,
        "slightly_better": 0.657,
        "negligibly_better": 0.553,
    },
}
"""Tables 7 and 8: accuracy of the 70B reward models on Meta's test sets of their own kind."""

UNSAFE = {"precision": {"0.15": 0.89}, "recall": {"0.15": 0.55, "0.5": 0.904}}
"""Section 3.2.3 and table 29: detection of unsafe answers whose score is below a threshold."""

RETENTION = {
    "with": {"2": 1.0, "4": 1.0, "6": 1.0, "20": 1.0},
    "without": {"2": 1.0, "4": 0.1, "6": 0.0, "20": 0.0},
}
"""Table 30: share of attributes recalled by turn, with and without Ghost Attention."""

FALSE_REFUSALS = 0.0005
"""Section 4.2.3: share of the helpfulness test set that is refused after training on all safety data."""

MITIGATED = 0.9
"""Section 4.3: share of the prompts that violated with one model and no longer with the next."""

WIN_RATE = {"win": 0.36, "tie": 0.315, "loss": 0.325}
"""Section 3.4.2: the 70B chat model against ChatGPT, compared by people on about 4,000 prompts."""
