"""What fine-tuning begins with: the base model, and whether corpus and features are such as it can read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from capxai.data.feature_store import FeatureStore
from capxai.errors import ConfigError, CorpusError, ModelError
from capxai.layers.dropout import Dropout
from capxai.models.captioner import Captioner
from capxai.models.folder import bundled_folder, newest_run
from capxai.recipes.feature_sources import encoder_bytes
from capxai.recipes.finetune import FinetuneConfig
from capxai.recipes.run_folder import RUNS
from capxai.recipes.training_data import Examples
from capxai.recipes.training_model import Eye
from capxai.types import JsonObject, Reporter

BUNDLED = Path("bundled")
"""The name of the model that comes with capxai."""
MOST_UNKNOWN = 0.5
"""A model that does not know half of the words of a corpus learns nothing from it but <unk>."""
WORTH_A_WARNING = 0.05
FEWEST_CAPTIONS = 2


def choose_base(config: FinetuneConfig, reporter: Reporter) -> Path:
    """Return the model to begin with: the one that is named, the newest run, or `BUNDLED`."""
    if config.model is not None:
        reporter.note(f"Base model: {config.model}.")
        return config.model
    newest = newest_run(RUNS)
    if newest is not None:
        reporter.note(f"Base model: {newest}, the newest run under '{RUNS}'.")
        return newest
    reporter.note(f"Base model: the bundled one; there is no run under '{RUNS}'.")
    return BUNDLED


def base_folder(model: Path) -> Path:
    """Return the folder of a base model: the name itself, but for `BUNDLED`, if there is no folder of that name."""
    return bundled_folder() if model == BUNDLED and not model.exists() else model


def refuse_own_base(base: Path, out: Path) -> None:
    """Refuse to replace the base model by what becomes of it.

    Raises:
        ConfigError: Both are the same folder.
    """
    if base_folder(base).resolve() == out.resolve():
        raise ConfigError(
            f"The model to fine-tune and --out are the same folder, '{out}'. Expected another one: the base model is kept, to compare with "
            "and to resume from. Choose another --out."
        )


def check_features(model: Captioner, store: FeatureStore | None, config: FinetuneConfig) -> None:
    """See that the model can see the corpus.

    Raises:
        ModelError: It has no encoder, and there are no features.
        ConfigError: The encoder is to learn, and there is none, or there are features that would not learn with it.
        CorpusError: The features are not those of its training.
    """
    if store is None:
        if model.encoder is None:
            _refuse_blind(model)
        return
    if config.train_encoder:
        raise ConfigError(
            f"train_encoder is on, and '{config.features}' holds features that would stay as they are. Expected one of the two. Leave "
            "--features out, or use --set train_encoder=false."
        )
    problems = _differences(model, store)
    if problems:
        raise CorpusError(
            f"'{store.path}' holds features with {'; '.join(problems)}. Expected features of the model's own encoder. Extract them with "
            "'capxai extract-features --model' for this model, or leave --features out if it has an encoder."
        )


def _refuse_blind(model: Captioner) -> None:
    config = model.lineage.get("config")
    known = config.get("features") if isinstance(config, dict) else None
    hint = f" It was trained on '{known}'." if known else ""
    raise ModelError(
        f"The model works on stored features and has no encoder, and no features are given.{hint} Expected a feature file of the corpus. "
        "Give it with --features, as in its training."
    )


def _differences(model: Captioner, store: FeatureStore) -> list[str]:
    found, wanted = store.description, model.specification
    problems = []
    if (found.regions, found.channels) != (wanted.regions, wanted.channels):
        problems.append(
            f"{found.regions} regions of {found.channels} channels, where the model has {wanted.regions} of {wanted.channels}"
        )
    trained = model.lineage.get("features")
    expected: JsonObject = dict(trained) if isinstance(trained, dict) else {}
    if model.encoder is not None:
        expected = {
            "encoder": wanted.encoder,
            "weights_sha256": hashlib.sha256(encoder_bytes(model.encoder)).hexdigest(),
        }
    for name in ("encoder", "weights_sha256"):
        one, other = getattr(found, name), expected.get(name)
        if one and other and one != other:
            problems.append(f"{name} '{one}', where the model has '{other}'")
    return problems


def check_captions(model: Captioner, examples: Examples, reporter: Reporter) -> None:
    """See that there is something to learn from, in words that the model knows.

    Raises:
        CorpusError: There is only one caption, or most words are unknown to the model.
    """
    references, unknown = examples.references, model.vocabulary.unknown
    captions = len(references.offsets) - 1
    if captions < FEWEST_CAPTIONS:
        raise CorpusError(
            f"The split '{examples.split.name}' has {captions} caption. Expected two or more: from one alone a model learns nothing but to "
            "repeat it. Choose a larger corpus."
        )
    words, foreign = len(references.words), int((references.words == unknown).sum())
    share = foreign / max(1, words)
    found = f"{foreign:,} of {words:,} words ({share:.0%}) in the references of '{examples.split.name}' are unknown to the model"
    if share > MOST_UNKNOWN:
        raise CorpusError(
            f"{found}, which knows {len(model.vocabulary):,}, so that it would learn to say {model.vocabulary.words[unknown]}. Expected at "
            f"most {MOST_UNKNOWN:.0%}. Choose a corpus in the language of the model, or train a model on this corpus first."
        )
    if share > WORTH_A_WARNING:
        reporter.warn(f"{found}; they are read as {model.vocabulary.words[unknown]}.")


def eye_of(model: Captioner) -> Eye:
    """Return what the model sees with: its own encoder, which may encode pictures again and again where they do not fit into memory."""
    sizes = model.specification
    return Eye(sizes.encoder, model.preprocessing, sizes.channels, sizes.regions, trained_here=True)


def set_dropout(model: Captioner, probability: float | None) -> None:
    """Let the decoder drop with this probability; None leaves each place its own."""
    for module in model.decoder.modules():
        if isinstance(module, Dropout) and probability is not None:
            module.p = probability
