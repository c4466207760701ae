"""What a pack does not show, made by rule from what was run."""

from __future__ import annotations

from collections.abc import Iterator

from erase.evaluate.images import SIDES
from erase.evidence.retained import bound, targets_of, unasked
from erase.evidence.stored import Held, attacks_of, part

# Ways of bringing a target back that this field knows, and what is needed for each.
ATTACKS = {
    "searched prompts": "prompts searched by their effect on the images (Ring-A-Bell, P4D, UnlearnDiffAtk)",
    "searched embeddings": "embeddings searched with the weights at hand (textual inversion, Concept Inversion)",
    "inverted images": "noise and embeddings inverted from an image of the target (TINA, M-ErasureBench)",
    "image prompts": "an image in place of the text, or beside it (IP-Adapter, REFORGE)",
    "fine-tuning": "training on images of the target, or on others that bring it back (relearning, relapse)",
    "combination": "merging with other weights: LoRAs, other checkpoints, other text encoders",
    "triggers": "phrases that were trained into the base before the erasure (poisoned bases)",
}
# Which of them an attack of this project searches.
SEARCHES = {
    "searched prompts": ("unlearndiffatk", "p4d", "ring_a_bell", "gcg"),
    "searched embeddings": ("concept_inversion",),
    "inverted images": ("tina",),
    "fine-tuning": ("relearn",),
    "combination": ("merge_probe",),
    "triggers": ("poison",),
}
FEW_PROMPTS, FEW_LABELLED = 30, 200


def not_attacked(held: Held) -> Iterator[str]:
    """Each known way of bringing a target back that no attack of the budget goes; one may name it as `ATTACKS` does."""
    declared = part(part(held.fixed, "budget"), "attacks")
    run = {*declared, *(str(part(declared, name).get("name", "")) for name in declared)}
    yield from (text for name, text in ATTACKS.items() if not run & {name, *SEARCHES.get(name, ())})


def limits_told(held: Held) -> Iterator[str]:
    """What else the figures leave open: the verifier's own words, and what follows from the values stored."""
    yield from (str(text) for text in held.result.get("not_shown", ()) if not str(text).startswith("not attacked"))
    yield from _of_detectors(held)
    if attacks_of(held):
        yield "the images of attacks are not carried: what was seen in them stands by the hashes alone"
    for aspect in dict.fromkeys(one.aspect for one in held.outcomes):
        prompts = {one.prompt for one in held.outcomes if one.aspect == aspect}
        if len(prompts) < FEW_PROMPTS:
            yield f'"{aspect}" was asked by {len(prompts)} prompts: other wordings may give another rate'
    if not held.apart:
        yield "nobody knows which prompts were used to edit: figures may be of prompts that the edit was made on"
    elif shared := {*held.apart.get("by_text", ()), *(pair[0] for pair in held.apart.get("by_state", ()))}:
        count = len({one.prompt for one in held.outcomes})
        yield f"{len(shared)} of {count} prompts are among those that the edit was made on: see the others alone"
    if held.apart and not held.apart.get("state"):
        yield "prompts were compared with those used to edit by their text, not by the text encoder's states"
    yield "which prompts were used to choose the method or its strength is not known to this tool"
    if all(one.quality is None for one in held.outcomes):
        yield "the quality of the images was not measured, beyond that they are not of one colour"
    if bound(held.outcomes, held.limits.confidence) is None:
        yield "not measured: whether two concepts of one prompt still come together, such as an object and its style"
    yield "not measured: several objects in one image, and where they stand"
    if not held.seen:
        yield "not measured: whether what the model draws where nobody asks for it has shifted"
    for one in unasked(held):
        shown = {side: sum(count for name, count in one[side].items() if name in targets_of(held)) for side in SIDES}
        if shown["after"]:
            yield (
                f"where nobody asks for any {one['domain']}, the target itself is in {shown['after']} of "
                f"{one['images']} images, {shown['before']} before: the edit answers to prompts that name it"
            )
    if part(held.result, "task").get("targets", [{}])[0].get("kind") in ("unsafe", "identity"):
        yield (
            "the concepts asked for stand for others that must not be drawn or asked for in a test: what is shown of "
            "these proxies is not shown of those"
        )


def _of_detectors(held: Held) -> Iterator[str]:
    names = dict.fromkeys(form.name for form in (*held.protocol.form.detector, *held.protocol.form.keeper))
    for name in names:
        labels = part(part(held.calibrations, name), "labels")
        if not labels:
            yield f"how often {name} is wrong on labelled images is not known: its rates are not corrected"
            continue
        concepts = {one.concept for one in held.outcomes if one.role == "erased"} & labels.keys()
        few = [
            one for one in sorted(concepts) if min(labels[one]["positives"], labels[one]["negatives"]) < FEW_LABELLED
        ]
        if few:
            yield f"{name} was calibrated on fewer than {FEW_LABELLED} images with, or without, {', '.join(few)}"
        yield f"{name} was calibrated on {held.calibrations[name].get('source', 'images')}, not on generated images"
