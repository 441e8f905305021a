"""The objectives of fine-tuning by their names. A new one is a function that is registered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from capxai.data.feature_store import FeatureStore
from capxai.errors import ConfigError, unknown_choice
from capxai.evaluate.lexicon import Lexicon
from capxai.finetune.boxes import ByBoxes
from capxai.finetune.counterfactual import Counterfactual, LossOfPictures
from capxai.finetune.inference_weights import Relevance, gradient_times_input, lrp_relevance, no_relevance, opposed
from capxai.finetune.lrp_inference import CrossEntropy, LrpInference, Reweighted, Reweighting
from capxai.finetune.mentions import ObjectMentions
from capxai.finetune.regions import RegionMethod, by_attention, by_chance, by_gradient_times_input, by_lrp
from capxai.finetune.stop_words import STOP_WORDS, neutral_words, read_stop_words
from capxai.models.captioner import Captioner
from capxai.models.state import Memory
from capxai.recipes.caption_reward import CaptionReward
from capxai.recipes.finetune import FinetuneConfig
from capxai.recipes.finetune_mentions import read_boxes, read_mentions, regions_of_grid, regions_of_store
from capxai.recipes.training_data import Examples
from capxai.train.self_critical import SelfCritical, Speaker
from capxai.types import Reporter

Objective = Callable[[Captioner, Memory, Any], tuple[Tensor, float]]
"""``objective(model, memory, batch)``: the summed loss of a share of a batch, and the number of words it is summed over."""


@dataclass(frozen=True)
class Materials:
    """What objectives are made of.

    Attributes:
        config: The settings.
        model: The captioner, on its device.
        examples: The training split.
        store: Its stored features, or None.
        lexicon: Names of objects.
        reporter: Where progress is shown.
    """

    config: FinetuneConfig
    model: Captioner
    examples: Examples
    store: FeatureStore | None
    lexicon: Lexicon
    reporter: Reporter

    def reweighting(self, relevance: Relevance = lrp_relevance, shuffled: bool = False) -> Reweighting:
        """Return how LRP inference re-weights."""
        words = STOP_WORDS if self.config.stop_words is None else read_stop_words(self.config.stop_words)
        neutral = neutral_words(self.model.vocabulary, frozenset() if self.config.all_words else words)
        return Reweighting(neutral.to(self.model.device), relevance, self.config.vectors, self.config.target, shuffled)

    def mentions(self, boxed: bool = False) -> ObjectMentions:
        """Find where the references name objects; with ``boxed``, only those that have a box."""
        boxes = read_boxes(self.examples.split, self.lexicon) if boxed else None
        return read_mentions(self.examples, self.model.vocabulary, self.lexicon, self.reporter, boxes)

    def counterfactual(self, find_regions: RegionMethod, as_it_is: LossOfPictures | None = None) -> Counterfactual:
        """Make the counterfactual objective that finds regions in this way; pictures as they are have the loss ``as_it_is``."""
        config = self.config
        weights = (config.penalty, config.other_reference, config.emphasis, as_it_is or CrossEntropy())
        return Counterfactual(self.mentions(), find_regions, config.hidden_share, *weights)

    def true_boxes(self) -> ByBoxes:
        """Return the way to find regions by true boxes: whatever a box touches, or half covers where regions are boxes themselves."""
        boxes = read_boxes(self.examples.split, self.lexicon)
        if self.store is not None and self.store.description.has_boxes:
            return ByBoxes(boxes, regions_of_store(self.store, self.examples.image_ids), least=0.5)
        grid = None if self.store is None else self.store.description.grid
        return ByBoxes(boxes, regions_of_grid(self.model.specification.regions, grid))

    def self_critical(self, speaker: Speaker | None = None) -> SelfCritical:
        """Make the self-critical objective of what a speaker samples; None is the model itself."""
        reward = CaptionReward.of(self.examples.references)
        return SelfCritical(reward, temperature=self.config.temperature, speaker=speaker)


Make = Callable[[Materials], Objective]


@dataclass(frozen=True)
class ObjectiveKind:
    """An objective that can be chosen.

    Attributes:
        name: Its name.
        summary: What it is, in a line.
        make: Makes it.
        rewards: Whether it maximizes a reward instead of the likelihood of references.
    """

    name: str
    summary: str
    make: Make
    rewards: bool = False


OBJECTIVES: dict[str, ObjectiveKind] = {}


def register(name: str, summary: str, make: Make, rewards: bool = False) -> None:
    """Let an objective be chosen.

    Raises:
        ConfigError: The name is taken.
    """
    if name in OBJECTIVES:
        raise ConfigError(f"The objective '{name}' is there already. Expected a name of its own. Choose another one.")
    OBJECTIVES[name] = ObjectiveKind(name, summary, make, rewards)


def unknown_objective(name: str) -> str:
    """Word the message for an objective that is not there."""
    return unknown_choice("objective", name, OBJECTIVES)


def _lrp(materials: Materials, relevance: Relevance = lrp_relevance, shuffled: bool = False) -> LrpInference:
    return LrpInference(materials.reweighting(relevance, shuffled), materials.config.plain_share)


def _counterfactual(materials: Materials, find_regions: RegionMethod) -> Counterfactual:
    return materials.counterfactual(find_regions)


def _inference_and_counterfactual(materials: Materials) -> Counterfactual:
    return materials.counterfactual(by_lrp, _lrp(materials))


def _scst_and_counterfactual(materials: Materials) -> Counterfactual:
    return materials.counterfactual(by_lrp, materials.self_critical())


def _true_boxes(materials: Materials) -> Counterfactual:
    config = materials.config
    weights = (config.penalty, config.other_reference, config.emphasis)
    return Counterfactual(materials.mentions(boxed=True), materials.true_boxes(), None, *weights)


def _scst(materials: Materials) -> SelfCritical:
    return materials.self_critical()


def _lrp_scst(materials: Materials) -> SelfCritical:
    reweighting = materials.reweighting()
    return materials.self_critical(lambda model: Reweighted(model, reweighting))


register("lrp", "cross-entropy, plain and after LRP inference (the paper's)", _lrp)
register("ce", "plain cross-entropy: the control", lambda materials: CrossEntropy())
register("scst", "self-critical: CIDEr-D of sampled captions above the greedy one", _scst, rewards=True)
register("lrp-scst", "self-critical, sampled by LRP inference (the paper's)", _lrp_scst, rewards=True)
register("lrp-omega-one", "lrp without relevance: a control", partial(_lrp, relevance=no_relevance))
register("lrp-omega-random", "lrp with shuffled relevance: a control", partial(_lrp, shuffled=True))
register("lrp-omega-opposed", "lrp with relevance of the other sign: a control", partial(_lrp, relevance=opposed))
register("lrp-gradient-x-input", "lrp with gradient x input", partial(_lrp, relevance=gradient_times_input))
register("lrp-counterfactual", "unlearn words whose regions are hidden", partial(_counterfactual, find_regions=by_lrp))
register("lrp-inference-counterfactual", "lrp and lrp-counterfactual in one loss", _inference_and_counterfactual)
register("scst-counterfactual", "scst and lrp-counterfactual in one loss", _scst_and_counterfactual, rewards=True)
register(
    "gradient-x-input-counterfactual",
    "the same, regions by gradient x input",
    partial(_counterfactual, find_regions=by_gradient_times_input),
)
register(
    "attention-counterfactual", "the same, regions by attention", partial(_counterfactual, find_regions=by_attention)
)
register(
    "random-counterfactual", "the same, random regions: a control", partial(_counterfactual, find_regions=by_chance)
)
register("box-counterfactual", "the same, true boxes: the upper bound", _true_boxes)


def make_objective(materials: Materials) -> Objective:
    """Make the objective that the settings name.

    Raises:
        ConfigError: There is no such objective.
        CorpusError: The corpus lacks what it needs.
    """
    kind = OBJECTIVES.get(materials.config.objective)
    if kind is None:
        raise ConfigError(unknown_objective(materials.config.objective))
    return kind.make(materials)
