"""Batch: the rows that hold a slot, and the operations that move them on. Used by the MLX thread only."""

import time

from mondrian_server.engine.process import embedding
from mondrian_server.engine.process.caches import FeatureCache, open_prefix_cache, prefix_salt
from mondrian_server.engine.process.embedding import Features, pieces_to_encode
from mondrian_server.engine.process.loading import LoadedModel
from mondrian_server.engine.process.mlx_internals import Emitted, Generator, Watched
from mondrian_server.engine.process.preparation import PictureInputs
from mondrian_server.engine.process.rows import Row
from mondrian_server.engine.process.sampling import Sampler
from mondrian_server.engine.protocol import EngineConfig


class Batch:
    """Rows that are prefilled one at a time, and decoded together."""

    def __init__(self, model: LoadedModel, config: EngineConfig):
        """Build mlx-vlm's generator for `model`, on this thread."""
        self._model = model
        self._config = config
        self._features = FeatureCache(config.vision_cache_entries)
        self._prefixes = open_prefix_cache(config.prefix_cache_bytes, model.cache_bytes_per_token)
        self._language = Watched(model.model.language_model)
        self._sampler = Sampler(
            self._language.last_logits,
            forbidden=sorted(model.vocabulary.media),
            ends=sorted(model.vocabulary.ends),
            budget=model.budget,
        )
        self._rows: dict[int, Row] = {}
        self._generator = self._new_generator()

    def _new_generator(self) -> Generator:
        return Generator(
            self._language,
            self._model.processor,
            self._sampler,
            slots=self._config.slots,
            step_tokens=self._config.prefill_step_tokens,
            prefix_cache=self._prefixes,
            kv_bits=self._config.kv_bits,
            kv_group_size=self._config.kv_group_size,
        )

    @property
    def decoding(self) -> bool:
        """Whether a decode step has anything to do."""
        return bool(self._generator.decoding())

    def pictures_to_encode(self, row: Row) -> list[PictureInputs]:
        """Return what must still be encoded for the row before it can enter."""
        if row.uid is not None:
            return []
        scope, missing = row.prepared.submit.cache_scope, list[PictureInputs]()
        for picture in pieces_to_encode(self._model, row):
            if picture.digest in row.features:
                continue
            cached = self._features.get(scope, picture.digest)
            if cached is None:
                missing.append(picture)
            else:
                row.features[picture.digest] = cached
        return missing

    def keep_features(self, scope: str, digest: bytes, features: Features) -> None:
        """Keep what was encoded for the rows of its scope."""
        self._features.put(scope, digest, features)

    def enter(self, row: Row) -> None:
        """Queue the row, whose pictures are encoded, for prefill."""
        began = time.monotonic()
        ids = [*row.prepared.ids, *row.tokens]
        inputs = embedding.inputs(self._model, row, ids)
        row.features.clear()
        if self._prefixes is not None:
            digests = [picture.digest for picture in row.prepared.submit.pictures]
            inputs["_apc_semantic_hash"] = prefix_salt(row.prepared.submit.cache_scope, digests)
        row.uid = self._generator.insert(ids, row.prepared.max_tokens - len(row.tokens), inputs)
        self._rows[row.uid] = row
        row.prefill_s += time.monotonic() - began

    def prefill(self, row: Row) -> tuple[int, bool]:
        """Compute one chunk of the row's prompt; return the tokens computed and whether the prompt is finished."""
        began = time.monotonic()
        self._sampler.serve_newcomer(row.draws)
        result = self._generator.prefill()
        row.prefill_s += time.monotonic() - began
        row.prompt_done = row.prompt_tokens if result.finished else result.done
        if not row.tokens:  # A row that continues after a failed step has reported its own first prefill.
            row.cached_tokens = result.cached
        return result.step, result.finished

    def join(self) -> None:
        """Let the rows whose prefill is finished take part in the next decode step."""
        self._generator.join()

    def decode(self) -> list[tuple[Row, Emitted]]:
        """Make one decode step for all rows and return their tokens; rows that ended have left the batch."""
        self._sampler.serve([self._rows[uid].draws for uid in self._generator.decoding()])
        emitted = self._generator.decode()
        result = [(self._rows[one.uid], one) for one in emitted]
        for one in emitted:
            if one.ended:
                del self._rows[one.uid]
        return result

    def remove(self, row: Row) -> None:
        """Take a row out, whatever its state."""
        if row.uid is not None and self._rows.pop(row.uid, None) is not None:
            self._generator.remove(row.uid)

    def abandon(self, row: Row) -> None:
        """Drop a row whose prefill raised."""
        self._generator.abandon_prefill()
        if row.uid is not None:
            self._rows.pop(row.uid, None)

    def rebuild(self) -> list[Row]:
        """Start over with an empty generator, and return the rows that were in the old one."""
        rows = list(self._rows.values())
        self._rows.clear()
        self._generator.abandon_prefill()
        self._generator.close()
        self._generator = self._new_generator()
        return rows
