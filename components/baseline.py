"""BaselineModel: what a candidate has to beat."""

import json
import math
import os

import numpy as np
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, path_utils

from components.transformed_examples import list_files, read_batches
from components.versions import newest_version
from model.export import read_stride
from model.tokenizer import VOCAB_SIZE
from model.unigram import count_tokens, export_unigram, unigram_nll

REPORT = "baseline.json"


@component
def BaselineModel(  # noqa: N802 (a component is named like a class)
    candidate: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    baseline: OutputArtifact[standard_artifacts.Model],
    serving_folder: Parameter[str],
    stride: Parameter[int],
    criteria: Parameter[str],
) -> None:
    """Takes the model in production or, when nothing is in production yet, the unigram model.

    There is always a baseline, so that the first run and every later one are the same graph, and
    the first candidate has to beat something too. This stands where TFX's own templates have a
    Resolver, which Kubeflow's open-source backend can't run.

    Writes the SavedModel and `baseline.json`: `version`, the model in production or null, and
    `unigram_perplexity` and `unigram_bits_per_byte`, the unigram model's on the eval split.

    Args:
        candidate: Not read, as `criteria`. A new candidate or new criteria are what makes it look
            into production anew: when nothing has changed, it comes from the cache like all others.
        examples: Transformed examples, splits `train` and `eval`.
        baseline: Where the SavedModel goes.
        serving_folder: `<base>/<model name>`, as TF Serving reads it.
        stride: The candidate's, in tokens: models are compared with the same context.
        criteria: The evaluation's settings.

    Raises:
        ValueError: The model in production is scored with another stride.
    """
    del candidate, criteria
    version = find_production(serving_folder, stride)
    train_batches = read_batches(_split_files(examples, "train"))
    counts = count_tokens((tokens for tokens, _, _ in train_batches), VOCAB_SIZE)
    model_folder = path_utils.serving_model_dir(baseline.uri)
    if version is None:
        export_unigram(counts, model_folder)
    else:
        io_utils.copy_dir(os.path.join(serving_folder, str(version)), model_folder)

    nll, total_nll, total_tokens, total_bytes = unigram_nll(counts), 0.0, 0, 0
    for tokens, _, num_bytes in read_batches(_split_files(examples, "eval")):
        total_nll += float(np.sum(nll[tokens]))
        total_tokens += len(tokens)
        total_bytes += int(np.sum(num_bytes))
    report = {
        "version": version,
        "unigram_perplexity": math.exp(total_nll / total_tokens),
        "unigram_bits_per_byte": total_nll / (math.log(2) * total_bytes),
    }
    with fileio.open(os.path.join(baseline.uri, REPORT), "w") as file:
        file.write(json.dumps(report, indent=2) + "\n")


def find_production(serving_folder: str, stride: int) -> int | None:
    """Returns the version in production, which a candidate has to beat, or None.

    Args:
        serving_folder: `<base>/<model name>`, as TF Serving reads it.
        stride: The candidate's, in tokens.

    Raises:
        ValueError: The model in production is scored with another stride.
    """
    version = newest_version(serving_folder)
    if version is None:
        return None
    production = os.path.join(serving_folder, str(version))
    found = read_stride(production)
    if found != stride:
        raise ValueError(
            f"evaluation.stride must be {found}, that of the model in production {production}, "
            f"got {stride}: with another context the two can't be compared; a new stride needs a "
            "new model_name"
        )
    return version


def _split_files(examples: standard_artifacts.Examples, split: str) -> list[str]:
    return list_files([os.path.join(artifact_utils.get_split_uri([examples], split), "*")])
