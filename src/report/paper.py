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

BENCHMARKS: dict[str, dict[str, dict[str, float]]] = {
    "mmlu": {"accuracy": {"7B": 0.453, "13B": 0.548, "34B": 0.626, "70B": 0.689, "GPT-3.5": 0.700}},
    "gsm8k": {"strict_match": {"7B": 0.146, "13B": 0.287, "34B": 0.422, "70B": 0.568, "GPT-3.5": 0.571}},
    "bbh": {"exact_match": {"7B": 0.326, "13B": 0.394, "34B": 0.441, "70B": 0.512}},
    "humaneval": {"pass_at_1": {"7B": 0.128, "13B": 0.183, "34B": 0.226, "70B": 0.299, "GPT-3.5": 0.481}},
    "truthfulqa_generation": {
        "truthful_and_informative": {"7B": 0.3329, "13B": 0.4186, "34B": 0.4345, "70B": 0.5018}
    },
    "toxigen_generation": {"toxic": {"7B": 0.2125, "13B": 0.2610, "34B": 0.2119, "70B": 0.2460}},
}
"""Tables 3, 4 and 11: the pretrained models, by benchmark and figure."""

CHAT_BENCHMARKS: dict[str, dict[str, dict[str, float]]] = {
    "truthfulqa_generation": {
        "truthful_and_informative": {
            "7B": 0.5704,
            "13B": 0.6218,
            "34B": 0.6720,
            "70B": 0.6414,
            "GPT-3.5": 0.7846,
        }
    },
    "toxigen_generation": {"toxic": {"7B": 0.0, "13B": 0.0, "34B": 0.0002, "70B": 0.0001, "GPT-3.5": 0.0020}},
}
"""Table 14: the same figures of the chat models."""

MODELS = ("7B", "13B", "34B", "70B", "GPT-3.5")
"""The models of `BENCHMARKS`."""
