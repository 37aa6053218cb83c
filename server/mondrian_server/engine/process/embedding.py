"""Embedding: token ids and encoded pictures become what the language half of a model takes, as the model needs it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import mlx.core as mx

from mondrian_server.engine.process.loading import Encodes, LoadedModel
from mondrian_server.engine.process.mlx_typed import arrays, evaluate, flatten
from mondrian_server.engine.process.preparation import Arrays, PictureInputs
from mondrian_server.engine.process.rows import Row

Named: TypeAlias = dict[str, Any]
"""Arrays by the names of mlx-vlm's `InputEmbeddingsFeatures`."""

Features: TypeAlias = mx.array | Named
"""What was encoded: one picture's features, or the inputs of a prompt's beginning with all pictures."""


def pieces_to_encode(model: LoadedModel, row: Row) -> tuple[PictureInputs, ...]:
    """Return what is encoded for a row: each picture, or its prompt's beginning, or the whole of it."""
    pieces = row.prepared.pictures
    if model.encodes is not Encodes.WHOLE or not pieces:
        return pieces
    ids = (*row.prepared.ids, *row.tokens)
    digest = hashlib.sha256(pieces[0].digest + repr(ids).encode()).digest()
    return (replace(pieces[0], ids=ids, digest=digest),)


def encode(model: LoadedModel, piece: PictureInputs) -> Features:
    """Run the vision half over a piece of a row's work."""
    embedded = _embed(model, piece.ids, piece.arrays)
    apart = model.encodes is Encodes.APART
    features = embedded["inputs_embeds"][0, _image_positions(model, piece.ids)] if apart else embedded
    evaluate(*flatten(features))
    return features


def inputs(model: LoadedModel, row: Row, ids: Sequence[int]) -> Named:
    """Return what the language half takes for a row, whose pictures are encoded, with these token ids."""
    pieces = pieces_to_encode(model, row)
    if not pieces:
        return _embed(model, ids, {})
    if model.encodes is Encodes.APART:
        return _with_features(model, row, ids)
    features = row.features[pieces[0].digest]
    if model.encodes is Encodes.FRAME:
        return _continued(model, features, ids, len(pieces[0].ids))
    return arrays({name: array for name, array in pieces[0].arrays.items() if name != "pixel_values"}) | features


def _embed(model: LoadedModel, ids: Sequence[int], pictures: Arrays) -> Named:
    tokens, own = mx.array([list(ids)]), arrays(pictures)
    mask = {"mask": mx.ones_like(tokens)} if own else {}
    outputs = model.model.get_input_embeddings(tokens, own.pop("pixel_values", None), **mask, **own)
    return {name: value for name, value in outputs.to_dict().items() if value is not None}


def _with_features(model: LoadedModel, row: Row, ids: Sequence[int]) -> Named:
    embeddings = _embed(model, ids, {})["inputs_embeds"]
    features = mx.concatenate([row.features[piece.digest] for piece in row.prepared.pictures])
    embeddings[0, _image_positions(model, row.prepared.ids)] = features.astype(embeddings.dtype)
    return {"inputs_embeds": embeddings}


def _continued(model: LoadedModel, beginning: Mapping[str, Any], ids: Sequence[int], known: int) -> Named:
    """Return the inputs of a prompt whose first `known` tokens, all pictures among them, are encoded."""
    rest = _embed(model, ids[known:], {})["inputs_embeds"]
    embeddings = beginning["inputs_embeds"]
    inputs = dict(beginning) | {"inputs_embeds": mx.concatenate([embeddings, rest.astype(embeddings.dtype)], axis=1)}
    inputs.pop("attention_mask_4d", None)  # All ones, and mlx-vlm 0.7.10's language models take none by this name.
    if (places := inputs.get("position_ids")) is not None:
        delta: Any = inputs["rope_deltas"]
        after = mx.arange(known, len(ids)) + delta.reshape(1, -1)[:, :1]
        shape = (*places.shape[:-1], len(ids) - known)
        after = mx.broadcast_to(after, shape).astype(places.dtype)
        inputs["position_ids"] = mx.concatenate([places, after], axis=-1)
    if (seen := inputs.get("visual_pos_masks")) is not None:
        unseen = mx.zeros((seen.shape[0], len(ids) - known), dtype=seen.dtype)
        inputs["visual_pos_masks"] = mx.concatenate([seen, unseen], axis=1)
    return inputs


def _image_positions(model: LoadedModel, ids: Sequence[int]) -> mx.array:
    return mx.array([position for position, i in enumerate(ids) if i == model.image_token])
