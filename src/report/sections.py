"""The sections of the page: their texts, figures and captions."""

from __future__ import annotations

from . import comparison_figures, figures, ghost_attention, reward_figures, rlhf_figures, version_figures
from .benchmark_section import BENCHMARK_SECTION
from .contamination_section import CONTAMINATION_SECTION
from .safety_sections import SAFETY_SECTIONS
from .section import Figure, Section

SECTIONS = (
    Section(
        "reward",
        "Reward models",
        "Each reward model was trained on pairs of answers, with the annotators' rating of how much better "
        "the chosen answer is, and is tested on pairs whose prompts were held out from training.",
        (
            Figure(
                reward_figures.reward_accuracy,
                "Accuracy: share of held-out pairs in which the model scores the answer that the (noisy) "
                "annotator chose higher, in percent, with standard errors. By rating: clear preferences are "
                "easy, negligible ones near chance (section 3.2.2, table 8). By length: a model that is "
                "biased to long answers is right more often if the longer answer was chosen. Diamonds: the "
                "paper's 70B models on Meta's test sets (tables 7 and 8).",
                "Accuracy is not drawn: the run has no finished reward model.",
            ),
            Figure(
                reward_figures.reward_groups,
                "The same accuracy by context and risk category of the prompt, and on pairs of a reference "
                'answer and an evasion, such as "I don\'t know". Look for a context near chance: there the '
                "rewards that RLHF optimises have no meaning.",
            ),
        ),
    ),
    Section(
        "rejection",
        "Rejection sampling",
        "Several answers are sampled per prompt, and the model is fine-tuned on the answers with the highest "
        "reward.",
        (
            Figure(
                rlhf_figures.rejection_scores,
                "Mean reward of all sampled answers and of the selected answers by stage. The reward is the "
                "score from 0 to 1 of the safety model for harmful prompts and unsafe answers, and of the "
                "helpfulness model otherwise. Both lines should rise; their distance is the possible gain "
                "from selection (section 3.2.3, figure 7).",
                "Rejection sampling is not drawn: the run has no finished rejection stage.",
            ),
        ),
    ),
    Section(
        "ppo",
        "PPO",
        "PPO trains the policy on the rewards of its sampled answers; a KL penalty limits its distance from "
        "the model that it started from.",
        (
            Figure(
                rlhf_figures.ppo_progress,
                "Means over the answers sampled in each iteration: the reward (the safety model's score for "
                "harmful prompts and unsafe answers, the helpfulness model's score otherwise), the score of "
                "each reward model, all from 0 to 1, and the KL to the initial policy (section 3.2.3). The "
                "held-out reward, if it was measured, is that of prompts that are not trained on.",
                "PPO is not drawn: the run has no finished ppo stage.",
            ),
            Figure(
                rlhf_figures.ppo_diagnostics,
                "The reward by the model that gives it, and the share of answers scored by the safety model. "
                "The reward can rise because both do, or because of their shares. The standard deviation of "
                "the advantages before whitening falls as the critic learns. Log-probabilities of sampler "
                "and trainer should differ by rounding only.",
            ),
            Figure(
                rlhf_figures.ppo_contexts,
                "Mean safety score of the answers to adversarial prompts by context. All lines should rise; "
                "a line that stays low shows a context in which PPO does not learn to refuse.",
            ),
        ),
    ),
    Section(
        "retention",
        "Ghost Attention",
        "An instruction is given once, in the system message of a dialogue's first turn. The model then "
        "answers all turns; its own answers are the history.",
        (
            Figure(
                ghost_attention.gatt_retention,
                "Solid: share of dialogues in which the answer at a turn follows the instruction. Dotted: "
                "share in which the model states the instruction correctly if asked directly at that turn. "
                "Unseen values: instructions with attribute values that do not occur in training. Bars are "
                "standard errors (section 3.3, table 30). The paper's 70B model recalls 100% of the "
                "attributes at turns 2 to 20 with GAtt, and 100, 10, 0 and 0% at turns 2, 4, 6 and 20 "
                "without it.",
                "Instruction following is not drawn: the evaluation has no dialogues with instructions.",
            ),
            Figure(
                ghost_attention.version_retention,
                "Left: share of dialogues in which the answer at a turn follows the instruction, for each "
                "version, with standard errors. Right: the mean over turns 1 to 10 minus that of sft, "
                "paired by dialogue. Look for versions below 0: RLHF made the model forget instructions.",
            ),
            Figure(
                ghost_attention.gatt_attention,
                "Maps: maximum attention weight over all layers and heads from each part of one dialogue "
                "(from top to bottom) to each earlier part (from left to right); the instruction is marked "
                "in orange. Last panel: the answers' attention to the instruction by turn, a mean over "
                "dialogues that both models read, with standard errors (section 3.3, figure 10).",
                "Attention is not drawn: the evaluation has no dialogues with instructions.",
            ),
        ),
    ),
    Section(
        "versions",
        "Comparison of versions",
        "Version sft is the model after supervised fine-tuning. Later versions, oldest first, were trained "
        "with the reward models, by rejection sampling or PPO. All versions answer the same test prompts "
        "with the same random draws, so the second table compares them prompt by prompt: a paired difference "
        'is the mean of the differences. ± is one standard error, clustered by prompt; "worse" follows '
        "differences in the bad direction of more than two standard errors. KL is the mean log-ratio per "
        "answer to sft, or to the model that a PPO stage started from.",
        (
            Figure(
                version_figures.versions,
                "Gold helpfulness is scored from 0 to 1 by rules that know the ground truth of the data; the "
                "dashed line is the mean of the SFT demonstrations. An answer to a harmful prompt is harmful "
                "(a violation), a refusal, or neither (invalid). False refusals are refusals of ordinary "
                "prompts and of borderline prompts, which sound harmful but are not. RLHF should raise "
                "helpfulness and turn violations into refusals without raising false refusals (sections 3.4 "
                "and 4.4). Bars are standard errors. In data without ground truth, refusals are recognized "
                "by typical phrases.",
                "Versions are not compared: the run has no finished evaluate stage.",
            ),
            Figure(
                version_figures.reward_by_round,
                "Mean reward-model score of each version's answers, after the sigmoid, with standard "
                "errors. If the helpfulness score rises and gold helpfulness does not, the policy exploits "
                "errors of the reward model. A falling score of the third model, which no stage optimises "
                "and which was trained on other comparisons, is another sign of this (section 3.4.1, figure "
                "11).",
                "Reward-model scores are not drawn: the run has no finished evaluation with reward models.",
            ),
            Figure(
                comparison_figures.reward_shift,
                "Distribution of the scores of each version's answers, in steps of 0.05. RLHF should move "
                "it to the right and remove the answers with the lowest scores (section 5.1, figure 20).",
            ),
        ),
    ),
    Section(
        "win_rates",
        "Wins, ties and losses",
        "Each version's answers are compared with those of sft and of the version before to the same "
        "prompts. Reward models and ground truth compare by their scores; a judge model, if there is one, "
        "is asked in both orders, and different verdicts are a tie. AC2 is Gwet's agreement of the raters "
        "on the scale loss, tie, win: 1 is perfect, 0 is chance.",
        (
            Figure(
                comparison_figures.win_rates,
                "Share of answers that are better than, as good as and worse than those of sft, by rater, "
                "with 95% intervals of wins and losses. A reward model that sees many more wins than the "
                "other raters has been exploited. The paper's 70B model won 36% and tied 31.5% against "
                "ChatGPT, judged by people (section 3.4.2).",
            ),
        ),
    ),
    Section(
        "diversity",
        "Diversity by temperature",
        "Several answers to each prompt are sampled at each temperature. Self-BLEU is the mean BLEU of an "
        "answer with the others as references: the higher, the more alike they are.",
        (
            Figure(
                comparison_figures.diversity,
                "Self-BLEU by temperature with standard errors over prompts. In the paper, RLHF makes the "
                "answers to factual prompts alike at any temperature, and those to creative prompts stay "
                "diverse (section 5.1, figure 21).",
            ),
        ),
    ),
    *SAFETY_SECTIONS,
    BENCHMARK_SECTION,
    CONTAMINATION_SECTION,
    Section(
        "training",
        "Training",
        "Training loss of each trained stage and wall time of all stages.",
        (
            Figure(
                figures.loss_curves,
                "Training loss by optimizer step. Pretraining: cross-entropy of the next token (section 2). "
                "SFT and rejection sampling: cross-entropy of the answers' tokens only (section 3.1). Reward "
                "models: pairwise ranking loss with a margin by rating (section 3.2.2).",
                "Losses are not drawn: no trained stage has logged a loss.",
            ),
            Figure(figures.wall_time, "Wall time of each stage.", "No stage has finished."),
        ),
    ),
)
