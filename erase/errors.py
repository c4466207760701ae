"""Errors a user can cause: one line each that says what was given, what was expected, and what to do."""

from __future__ import annotations


class EraseError(Exception):
    """Base of all errors that are shown as one line instead of a traceback."""

    exit_code = 2


class UnknownName(EraseError):
    """A method, model, prompt set, score, export or pipeline that does not exist."""


class BadPlugin(EraseError):
    """A plug-in that cannot be used, or code that nobody has allowed to run."""


class BadPipeline(EraseError):
    """A pipeline file that is not one: not YAML, an unknown key, a value of the wrong type."""


class BadPrompts(EraseError):
    """A prompt set that cannot be read."""


class BadProtocol(EraseError):
    """A protocol file that is not one, or one that has nothing to ask about a task."""


class BadTask(EraseError):
    """A task that contradicts itself: no target, a target that is also kept, an anchor equal to its target."""


class BadOption(EraseError):
    """An option of a method or a sampler that is out of range."""


class BadModel(EraseError):
    """A folder that is not a model, or lacks a part."""


class BadWeights(EraseError):
    """A weight file that is corrupt, truncated or not finite."""


class PickleRefused(BadWeights):
    """A weight file that could run code when it is read."""


class BadEdit(EraseError):
    """An edit that cannot be read, or whose result is not finite."""


class ModelMismatch(EraseError):
    """An edit that was made for another base model."""


class CannotEdit(EraseError):
    """A method that was asked to edit a model of a family that has none of the weights it edits."""


class PromptTooLong(EraseError):
    """A prompt with more tokens than the text encoder takes."""


class TrainingFailed(EraseError):
    """A training whose loss is not finite, or that changed nothing."""


class RunConflict(EraseError):
    """A folder that holds another recipe's run, or anything else that must not be overwritten."""


class CannotWrite(EraseError):
    """A place where nothing can be written."""


class DiskFull(EraseError):
    """No space left where something was to be written."""


class MissingExtra(EraseError):
    """An optional dependency that is not installed."""


class OutOfMemory(EraseError):
    """A device on which not even one image fits."""


class ScoreFailed(EraseError):
    """A score that could not be computed; never counted as a clean image."""


class BadEvidence(EraseError):
    """A folder of which no pack of evidence can be made, or a pack that cannot be read."""


class AttackRefused(EraseError):
    """An attack that this project does not make, or that would show nothing."""


class NeverDrawn(AttackRefused):
    """A target that the base model never draws: nothing could come back."""


class GateFailed(EraseError):
    """A finished run whose figures do not reach what its gate asks for."""

    exit_code = 3
