"""The sections of the page on safety (sections 4.2 to 4.4); they are omitted if nothing was measured."""

from __future__ import annotations

from . import breakdown_figures, distillation_figures, red_team_figures, refusal_figures, safety_figures
from .section import Figure, Section

SAFETY_SECTIONS = (
    Section(
        "safety",
        "Safety training",
        "Safety data is used in SFT, in the safety reward model, and as adversarial prompts of the RLHF "
        "stages (section 4.2). It should raise the scores of unsafe answers and leave helpfulness as it is.",
        (
            Figure(
                safety_figures.score_shift,
                "Each point is two answers to one test prompt: the score of the first version's answer "
                "(horizontal) and of the last one's (vertical), after the sigmoid. Equal pairs are one "
                "point; its area is their number. Look for safety points above the dashed diagonal, above "
                "all at the left: unsafe answers became safe; the helpfulness points should not move "
                "below it (section 4.2.3, figure 14).",
            ),
            Figure(
                safety_figures.data_scaling,
                "Solid: mean score of the answers. Dashed: left tail, the mean of the lowest 10% of the "
                "scores. Bars are standard errors. Safety should rise, its left tail most of all, while "
                "helpfulness stays. If versions are named by their share of the safety data, only these are "
                "drawn, by share; in the paper safety rises with the share and mean helpfulness stays "
                "(section 4.2.3, figure 15).",
            ),
        ),
    ),
    Section(
        "false_refusals",
        "False refusals",
        "A false refusal is the refusal of a harmless prompt. Refusals are recognized by rules and, "
        "independent of them, by a trained classifier. Safety training should not raise them (section "
        "4.2.3).",
        (
            Figure(
                refusal_figures.false_refusals,
                "Share of ordinary prompts, and of borderline prompts (which sound harmful but are not), "
                "that each version refuses. Bars of one version should be equally high: otherwise the two "
                "ways to recognize refusals disagree. Lines are standard errors. The dashed line is the "
                "paper's rate on its helpfulness test set with all safety data (figure 33).",
            ),
        ),
    ),
    Section(
        "distillation",
        "Context distillation",
        "The model answers adversarial prompts with a safety preprompt, which is generic or contains an "
        "answer template of the prompt's risk category, and is then trained on these answers without the "
        "preprompt. A gate keeps an answer only if the safety model scores it higher than the original one "
        "(section 4.2.4).",
        (
            Figure(
                distillation_figures.distillation,
                "Left: distribution of the safety scores; with preprompts it should move to the right, with "
                "tailored ones further. Middle: mean change of the score by the score of the original "
                "answer, with standard errors; answers that scored low should gain, and those that scored "
                "high may lose, which is why there is a gate. Right: share of prompts whose distilled "
                "answer is kept (figure 16).",
            ),
            Figure(
                distillation_figures.ablations,
                "Models that were trained in another way, each minus sft, prompt by prompt. If the whole "
                "bar (two standard errors on each side) is on one side of 0, the difference is significant. "
                "Without the gate, look for lower helpfulness and more false refusals (section 4.2.4).",
            ),
        ),
    ),
    Section(
        "red_team",
        "Red teaming",
        "All versions are attacked with prompts of every risk category and attack style (section 4.3). The "
        "paper had more than 350 people do this.",
        (
            Figure(
                red_team_figures.heat_maps,
                "Violations in percent by risk category and attack style, with the number of answers (n); "
                "a stronger red is worse. Look for red columns (a style that safety training did not "
                "cover) and for cells that stay red from version to version.",
            ),
            Figure(
                red_team_figures.by_turns,
                "Left: share of answers that are violations, for prompts of one user message, of several, "
                "and overall. Right: of the prompts that violated with the version before, the share that "
                "no longer does (bars), and of the others the share that now does (triangles). Lines are "
                "95% intervals. The paper reports 90% mitigated from one model to the next (dashed).",
            ),
        ),
    ),
    Section(
        "safety_evaluation",
        "Safety and helpfulness by group of prompts",
        "The same test prompts as in the comparison of versions, in groups: by context (plain, with an "
        "instruction in the system message, with several user turns), number of user turns, risk category, "
        "attack style and language, for each decoding. The paper reports violations at temperature 0.1 and "
        "top-p 0.9, of about 2,000 prompts (section 4.4).",
        (
            Figure(
                breakdown_figures.violations_by_group,
                "Share of harmful prompts with a harmful answer (in data without ground truth: that are "
                "refused). Bars are standard errors. Look for groups far from the row of all prompts, and "
                "for rings: there the version is worse than the one before by more than two paired standard "
                "errors. Groups are compared in the first decoding only; in the others only the row of all "
                "prompts can have rings.",
            ),
            Figure(
                breakdown_figures.false_refusals_by_group,
                "Share of ordinary and of borderline prompts that are refused, with standard errors. Rings "
                "as above.",
            ),
            Figure(
                breakdown_figures.helpfulness_by_group,
                "Mean helpfulness of the answers to ordinary prompts, by the ground truth or else by the "
                "helpfulness model, with standard errors. Rings as above.",
            ),
        ),
    ),
)
