"""What a model was wrong about lately, near a question: a bounded memory of errors that corrects it between two trainings.

Shapes: D = numbers of a key, N = entries written, K = questions, T = tasks, L = tables, H = buckets of a table, R = slots of a
bucket, J = L x bits, E = entries that are kept, S = L x R slots looked at.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from recsys.spec import Spec

Array = NDArray[Any]
EDGE = 1e-3  # a correction goes no nearer to 0 or 1 than this, unless the model itself was there
NOBODY = -1


class ErrorMemorySpec(Spec):
    """Size of the memory, and how far it is believed."""

    tasks: tuple[str, ...] = Field(
        min_length=1, description="what is corrected: tasks of 0 and 1 whose events are posted under the task's name"
    )
    window_s: float = Field(
        3600, gt=0, description="after a list was served: a task whose event came by then was a yes, else it was a no"
    )
    strength: float = Field(0.5, ge=0, le=1, description="share of the error found that is added to the probability")
    temperature: float = Field(0.1, gt=0, description="of the softmax over cosines: lower trusts the nearest errors alone")
    prior: float = Field(50, ge=0, description="errors that a correction needs to be half believed")
    history: int = Field(20, ge=1, description="newest items of the history that a key is made of")
    item_share: float = Field(
        0.3,
        ge=0,
        le=1,
        description="of a cosine: 1 compares items alone, 0 the users' tastes alone, which moves all items of a list alike",
    )
    entries: int = Field(20_000, ge=1, description="errors kept, the newest")
    tables: int = Field(4, ge=1, le=32, description="hash tables; more find more of what is near, and cost more")
    bits: int = Field(6, ge=1, le=16, description="of a hash: a table has 2 ** bits buckets")
    slots: int = Field(8, ge=1, le=256, description="newest entries of a bucket that can be found")
    seed: int = Field(0, ge=0, description="of the random projections")


class ErrorMemory:
    """Errors y - p of a model by the key of the question; what stands near a new key says how wrong the model is there.

    ReLoop2, Zhu et al. 2023, "Building Self-Adaptive Recommendation Models via Responsive Error Compensation Loop",
    https://arxiv.org/abs/2306.08808. With q the key, k_i the keys found and e_i their errors:

        a = softmax(q . k_i / temperature),  e = sum a_i e_i * n / (n + prior),  n = 1 / sum a_i ** 2
        p' = clip(p + strength * e, EDGE, 1 - EDGE)

    Keys are found by signed random projections (Charikar 2002): `tables` hashes of `bits` signs each, whose buckets hold the
    newest `slots` entries, written round and round. Memory and time do not grow with what was written.

    Differs from the paper: a key is given, not the model's last layer; entries keep their keys, so that similarities are exact;
    all that is found is weighed, no top m; the error is shrunk by Kish's effective number n of errors, since a mean of few says
    little; the correction stops short of 0 and 1. Not safe for threads: who reads beside a writer holds a lock.
    """

    def __init__(self, spec: ErrorMemorySpec, width: int, num_tasks: int) -> None:
        """`width`: numbers of a key."""
        self.spec, self.written = spec, 0
        buckets = 2**spec.bits
        rng = np.random.default_rng(spec.seed)
        self._plane_DJ = rng.normal(size=(width, spec.tables * spec.bits)).astype(np.float32)
        self._key_ED = np.zeros((spec.entries, width), np.float32)
        self._error_ET = np.zeros((spec.entries, num_tasks), np.float32)
        self._owner_E = np.full(spec.entries, NOBODY, np.int64)
        self._number_LHR = np.full((spec.tables, buckets, spec.slots), -1, np.int64)  # which entry, counted from the first one
        self._writes_LH = np.zeros((spec.tables, buckets), np.int64)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._owner_E != NOBODY))

    @property
    def nbytes(self) -> int:
        arrays = (self._plane_DJ, self._key_ED, self._error_ET, self._owner_E, self._number_LHR, self._writes_LH)
        return sum(each.nbytes for each in arrays)

    def write(self, key_ND: Array, error_NT: Array, owner: int) -> None:
        """Keep errors label - probability, oldest first. `owner`: whose they are, 0 or more, for `forget`."""
        bucket_NL = self._buckets(key_ND)
        for key_D, error_T, bucket_L in zip(key_ND, error_NT, bucket_NL.tolist(), strict=True):
            row = self.written % self.spec.entries
            self._key_ED[row], self._error_ET[row], self._owner_E[row] = key_D, error_T, owner
            for table, bucket in enumerate(bucket_L):
                place = self._writes_LH[table, bucket] % self.spec.slots
                self._number_LHR[table, bucket, place] = self.written
                self._writes_LH[table, bucket] += 1
            self.written += 1

    def forget(self, owner: int) -> int:
        """Take out what is an owner's; how many entries there were."""
        rows = np.flatnonzero(self._owner_E == owner)
        self._owner_E[rows], self._key_ED[rows], self._error_ET[rows] = NOBODY, 0, 0
        return len(rows)

    def errors(self, key_KD: Array) -> Array:
        """error_KT to be expected near these keys, shrunk; 0 where nothing is near."""
        if not self.written:
            return np.zeros((len(key_KD), self._error_ET.shape[1]), np.float32)
        number_KS = self._number_LHR[np.arange(self.spec.tables), self._buckets(key_KD)].reshape(len(key_KD), -1)
        number_KS = np.sort(number_KS, axis=1)
        row_KS = number_KS % self.spec.entries
        found_KS = number_KS >= max(self.written - self.spec.entries, 0)
        found_KS[:, 1:] &= number_KS[:, 1:] != number_KS[:, :-1]  # an entry that several tables found counts once
        found_KS &= self._owner_E[row_KS] != NOBODY
        near_KSD = self._key_ED.take(row_KS, axis=0)  # four times as fast as by brackets
        similarity_KS = (near_KSD @ key_KD[:, :, None])[:, :, 0]
        return attended(similarity_KS, self._error_ET[row_KS], found_KS, self.spec.temperature, self.spec.prior)

    def compensated(self, probability_KT: Array, key_KD: Array) -> Array:
        """The probabilities with `strength` of the expected errors added."""
        return compensated(probability_KT, self.errors(key_KD), self.spec.strength)

    def _buckets(self, key_ND: Array) -> Array:
        """bucket_NL: the signs of the projections as a number."""
        sign_NLb = (key_ND @ self._plane_DJ > 0).reshape(len(key_ND), self.spec.tables, self.spec.bits)
        bucket_NL: Array = sign_NLb @ (1 << np.arange(self.spec.bits))
        return bucket_NL


def attended(similarity_KS: Array, error_KST: Array, found_KS: Array, temperature: float, prior: float) -> Array:
    """error_KT: of the entries that were found, weighed by a softmax over similarities and shrunk; 0 where there is none."""
    similarity_KS = np.where(found_KS, similarity_KS, -np.inf)
    highest_K1 = np.maximum(similarity_KS.max(axis=1, keepdims=True), np.finfo(np.float32).min)
    weight_KS = np.exp((similarity_KS - highest_K1) / temperature)
    total_K1 = np.maximum(weight_KS.sum(axis=1, keepdims=True), 1e-12)
    count_K1 = total_K1**2 / np.maximum((weight_KS**2).sum(axis=1, keepdims=True), 1e-12)  # equal errors that say as much
    mean_KT = np.einsum("ks,kst->kt", weight_KS, error_KST) / total_K1
    shrunk_KT: Array = mean_KT * (count_K1 / (count_K1 + prior))
    return shrunk_KT


def compensated(probability_KT: Array, error_KT: Array, strength: float) -> Array:
    """No nearer to 0 or 1 than EDGE, or than the model itself said. A row of NaN stays one."""
    low_KT, high_KT = np.minimum(probability_KT, EDGE), np.maximum(probability_KT, 1 - EDGE)
    return np.clip(probability_KT + np.float32(strength) * error_KT, low_KT, high_KT)


def taste_keys(vector_HD: Array, item_KD: Array, item_share: float) -> Array:
    """key_KD of length 1 from unit vectors: the mean of a history's newest items, joined with each item's own.

    The cosine of two keys is (1 - item_share) that of the users' tastes + item_share that of the items.
    """
    taste_D = vector_HD.sum(axis=0) if len(vector_HD) else np.zeros(item_KD.shape[1], np.float32)
    taste_D = taste_D / max(float(np.linalg.norm(taste_D)), 1e-12)
    key_KD = np.empty((len(item_KD), 2 * item_KD.shape[1]), np.float32)
    key_KD[:, : len(taste_D)] = taste_D * np.float32(1 - item_share) ** 0.5
    key_KD[:, len(taste_D) :] = item_KD * np.float32(item_share) ** 0.5
    return key_KD
