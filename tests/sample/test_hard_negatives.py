"""What every kind of hard negatives promises; a new member of the union is tested with no edit here. Then numbers by hand.

Shapes: N = predictions, B = sequences, D = width, C = items, K = negatives of a row.
"""

from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Generator, Tensor

from recsys.heads import PairLoss, SampledLoss
from recsys.heads.bpr import BPR
from recsys.heads.full_softmax import FullSoftmax
from recsys.heads.lambda_pairs import LambdaPairs
from recsys.heads.sampled_softmax import SampledSoftmax
from recsys.sample import Coupled, Dynamic, HardNegatives, Stable
from recsys.sample.hard import Against, Standing
from recsys.train.sampled import compare

MEMBERS = get_args(get_args(HardNegatives)[0])
LOSSES = get_args(SampledLoss)
LENGTH_B = torch.tensor([4, 1, 6, 3])
N, D, C = 14, 6, 40
LITTLE = {"dynamic": {"count": 5}, "stable": {"best": 5, "count": 6, "targets": 4}, "coupled": {"count": 5}}


def small(member: Any) -> Any:
    """A spec that leaves a choice among so few items."""
    return member(**LITTLE.get(member().kind, {}))


def standing(scale: float = 1.0, *, seed: int = 0, data: int = 1, dtype: torch.dtype = torch.float32) -> Standing:
    """Rows 10 to 39 of the table are the pool; targets may be any."""
    generator = Generator().manual_seed(data)
    user_ND, item_CD = (torch.randn(rows, D, generator=generator) for rows in (N, C))
    return Standing(
        user_ND.to(dtype).requires_grad_(), (scale * item_CD).to(dtype).requires_grad_(), torch.arange(C) + 2,
        torch.randint(C, (N,), generator=generator), LENGTH_B, torch.arange(10, C), torch.linspace(-2, 0, C - 10),
        torch.zeros(N), seed,
    )  # fmt: skip


def built(spec: Any) -> Any:
    torch.manual_seed(0)
    return spec.build(D, torch.randn(C + 2, 2))


def losses(loss: Any, spec: Any, batch: Standing) -> tuple[Tensor, Against]:
    hard = built(spec)
    return compare(loss, hard, batch, C).loss_N, hard(batch)


PAIRS = [
    (loss, member) for member in MEMBERS for loss in LOSSES if issubclass(loss, get_args(PairLoss)) or not member.needs_pairs
]


@pytest.mark.parametrize(("loss", "member"), PAIRS, ids=lambda each: each.__name__)
class TestEveryLoss:
    @pytest.mark.parametrize("scale", [0.0, 1.0, 80.0])
    def test_one_finite_loss_per_row_and_finite_gradients(self, loss: Any, member: Any, scale: float) -> None:
        batch = standing(scale)
        loss_N, _ = losses(loss(), small(member), batch)
        loss_N.sum().backward()
        assert loss_N.shape == (N,)
        assert loss_N.dtype == torch.float32
        assert torch.isfinite(loss_N).all()
        assert (loss_N >= 0).all()
        for leaf in (batch.user_ND, batch.item_CD):
            assert leaf.grad is not None
            assert torch.isfinite(leaf.grad).all()

    def test_gradient_reaches_every_row_and_descends(self, loss: Any, member: Any) -> None:
        batch = standing()
        loss_N, against = losses(loss(), small(member), batch)
        loss_N.sum().backward()
        assert (batch.user_ND.grad != 0).any(dim=1).all()
        assert (batch.item_CD.grad[batch.place_N] != 0).any(dim=1).all()
        # Against the very same negatives, since a better model is given harder ones.
        positive_N = (batch.positive_N + 0.1).detach()
        weight = () if against.weight_NK is None else (against.weight_NK,)
        logits = against.negative_NK.detach(), torch.zeros(N), against.log_expected
        slope = loss()(positive_N.requires_grad_(), *logits, C, *weight)
        assert (torch.autograd.grad(slope.sum(), positive_N)[0] < 0).all()

    def test_half_precision(self, loss: Any, member: Any) -> None:
        batch = standing()
        with torch.autocast("cpu", torch.bfloat16):
            half_N = losses(loss(), small(member), batch)[0]
        full_N = losses(loss(), small(member), batch)[0]
        assert half_N.dtype == torch.float32
        half_N.sum().backward()
        assert torch.isfinite(batch.user_ND.grad).all()
        assert half_N.mean().item() == pytest.approx(full_N.mean().item(), rel=0.1)

    def test_vectors_of_half_precision(self, loss: Any, member: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss_N = losses(loss(), small(member), standing(dtype=torch.bfloat16))[0]
        assert loss_N.dtype == torch.float32
        assert torch.isfinite(loss_N).all()


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
class TestContract:
    def test_a_known_positive_is_never_chosen(self, member: Any) -> None:
        # The windows' own items are scored best of all, so nothing but the guard keeps them out.
        batch = standing()
        vector_BD = torch.randn(len(LENGTH_B), D, generator=Generator().manual_seed(5))
        user_ND, item_CD = 5 * vector_BD[batch.sequence_N], batch.item_CD.detach().clone()
        item_CD[batch.place_N] = 5 * vector_BD[batch.sequence_N]
        batch = Standing(
            user_ND, item_CD.requires_grad_(), batch.item_C, batch.place_N, batch.length_B, batch.place_S,
            batch.log_expected_S, batch.log_expected_N,
        )  # fmt: skip
        hard = built(small(member))
        for row in range(N):
            against = hard(batch)
            score_K = against.negative_NK[row]
            grad_CD = torch.autograd.grad(score_K[score_K.isfinite()].sum(), batch.item_CD)[0]
            chosen = set(grad_CD.abs().sum(1).nonzero().flatten().tolist())
            known = set(batch.place_N[batch.sequence_N == batch.sequence_N[row]].tolist())
            assert chosen
            assert not chosen & known
        assert (batch.place_N >= 10).sum() > N // 2, "the pool holds nothing to guard"

    def test_the_seed_alone_decides(self, member: Any) -> None:
        hard = built(small(member))
        torch.manual_seed(1)
        first = hard(standing(seed=4))
        torch.manual_seed(2)
        second = hard(standing(seed=4))
        for name in ("negative_NK", "log_expected", "weight_NK", "own_N"):
            one, two = getattr(first, name), getattr(second, name)
            assert (one is None and two is None) or torch.equal(one, two)

    def test_terms_are_numbers_to_log(self, member: Any) -> None:
        terms = built(small(member))(standing()).terms
        assert terms
        for value in terms.values():
            assert value.ndim == 0
            assert not value.requires_grad
            assert value >= 0

    def test_what_it_makes_leaves_the_batch_alone(self, member: Any) -> None:
        batch = standing()
        before = [tensor.detach().clone() for tensor in (batch.user_ND, batch.item_CD, batch.place_N, batch.place_S)]
        built(small(member))(batch)
        for was, now in zip(before, (batch.user_ND, batch.item_CD, batch.place_N, batch.place_S), strict=True):
            assert torch.equal(was, now)

    def test_a_pool_that_is_all_known_leaves_no_negative_but_a_finite_loss(self, member: Any) -> None:
        place_N = torch.tensor([0, 1, 2])
        batch = Standing(
            torch.ones(3, D, requires_grad=True), torch.ones(3, D, requires_grad=True), torch.arange(3) + 2, place_N,
            torch.tensor([3]), place_N, torch.zeros(3), torch.zeros(3),
        )  # fmt: skip
        hard = member(**LITTLE.get(member().kind, {})).build(D, torch.randn(5, 2))
        result = compare(BPR(), hard, batch, 3)
        result.loss_N.sum().backward()
        assert result.loss_N.tolist() == [0, 0, 0]
        assert batch.user_ND.grad is None or (batch.user_ND.grad == 0).all()

    def test_own_parameters_and_the_model_never_train_each_other(self, member: Any) -> None:
        hard, batch = built(small(member)), standing()
        against = hard(batch)
        own = list(hard.parameters()) if isinstance(hard, torch.nn.Module) else []
        assert bool(own) == (against.own_N is not None)
        if against.own_N is not None:
            against.own_N.sum().backward()
            assert all(p.grad is not None and (p.grad != 0).any() for p in own)
            assert batch.user_ND.grad is None
            assert batch.item_CD.grad is None
            for p in own:
                p.grad = None
        compare(LambdaPairs(), hard, batch, C).loss_N.sum().backward()
        assert all(p.grad is None for p in own)
        assert batch.user_ND.grad is not None

    def test_reads_back_from_its_own_settings_and_refuses_others(self, member: Any) -> None:
        adapter = TypeAdapter(HardNegatives)
        assert adapter.validate_python(member().model_dump(mode="json")) == member()
        with pytest.raises(ValidationError):
            adapter.validate_python({"kind": member().kind, "top": 3})


def by_hand(user: list[float], score_I: list[float], target: int, known: int = 1) -> Standing:
    """One row whose window has `known` events of that item, over items of these scores."""
    item_CD = torch.tensor(score_I, dtype=torch.float64)[:, None].requires_grad_()
    number, place = len(score_I), torch.full((known,), target)
    rows = torch.tensor(user, dtype=torch.float64).expand(known)[:, None].clone().requires_grad_()
    all_items = torch.arange(number)
    return Standing(
        rows, item_CD, all_items + 2, place, torch.tensor([known]), all_items, torch.zeros(number), torch.zeros(known)
    )


class TestDynamic:
    SCORES = [0.1, 0.9, 0.4, 0.8, 0.2]  # noqa: RUF012

    @pytest.mark.parametrize(
        ("count", "skip", "expected"),
        [(2, 0, [0.9, 0.8]), (2, 1, [0.8, 0.2]), (1, 3, [0.1]), (9, 0, [0.9, 0.8, 0.2, 0.1]), (9, 2, [0.2, 0.1])],
    )
    def test_the_best_after_the_very_best(self, count: int, skip: int, expected: list[float]) -> None:
        score_K = Dynamic(count=count, skip=skip)(by_hand([1.0], self.SCORES, target=2)).negative_NK[0]
        assert score_K[score_K.isfinite()].tolist() == pytest.approx(expected)

    def test_skipping_them_all_leaves_none(self) -> None:
        for skip in (4, 5, 20):
            assert not Dynamic(count=3, skip=skip)(by_hand([1.0], self.SCORES, target=2)).negative_NK.isfinite().any()

    def test_without_guard_only_the_target_is_none(self) -> None:
        batch = standing()
        chosen = batch.hardest(C, guard=False)
        for row in range(N):
            places = set(batch.place_S[chosen.place_NK[row][chosen.exists_NK[row]]].tolist())
            assert places == set(range(10, C)) - {int(batch.place_N[row])}

    def test_chunks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = standing().hardest(5)
        monkeypatch.setattr("recsys.sample.hardest.CHUNK_SCORES", 3 * 31)
        parts = standing().hardest(5)
        assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))

    def test_the_whole_pool_without_guard_is_the_full_softmax(self) -> None:
        batch = standing()
        item_CD = torch.cat([torch.zeros(2, D), batch.item_CD])  # the reserved rows
        full_N = FullSoftmax()(batch.user_ND, item_CD, batch.place_N + 2)
        full = torch.autograd.grad(full_N.mean(), (batch.user_ND, batch.item_CD))
        every = Standing(
            batch.user_ND, batch.item_CD, batch.item_C, batch.place_N, LENGTH_B, torch.arange(C), torch.zeros(C), torch.zeros(N)
        )
        loss_N = compare(SampledSoftmax(), Dynamic(count=C, guard=False), every, C).loss_N
        torch.testing.assert_close(loss_N, full_N)
        for one, two in zip(torch.autograd.grad(loss_N.mean(), (batch.user_ND, batch.item_CD)), full, strict=True):
            torch.testing.assert_close(one, two)

    def test_a_correction_stands_with_its_item(self) -> None:
        batch = standing()
        against = Dynamic(count=4)(batch)
        score_NS = (batch.user_ND @ batch.item_CD[batch.place_S].T).detach()
        for row in range(N):
            for score, log in zip(against.negative_NK[row].tolist(), against.log_expected[row].tolist(), strict=True):
                at = int((score_NS[row] - score).abs().argmin())
                assert log == batch.log_expected_S[at].item()

    def test_adore_by_hand(self) -> None:
        # The list is scored 3, 2, 1 and the target stands second.
        batch = by_hand([1.0], [2.0, 3.0, 1.0], target=0)
        assert compare(LambdaPairs(), Dynamic(count=2), batch, 3).loss_N.item() == pytest.approx(0.354421, abs=1e-6)


class TestStable:
    def star(self) -> Standing:
        """Two rows of different windows, in-batch scores [[2, 1], [0, 3]] and hard ones [[1.5, 0], [1, 2]]."""
        user_ND = torch.eye(2, dtype=torch.float64)
        item_CD = torch.tensor([[2.0, 0.0], [1.0, 3.0], [1.5, 1.0], [0.0, 2.0]], dtype=torch.float64)
        place = torch.arange(4)
        return Standing(user_ND, item_CD, place + 2, place[:2], torch.tensor([1, 1]), place[2:], torch.zeros(2), torch.zeros(2))

    def test_star_by_hand(self) -> None:
        hard = compare(BPR(), Stable(best=1, count=2, targets=2), self.star(), 4).loss_N
        assert hard.mean().item() == pytest.approx(0.233841, abs=1e-6)
        only = compare(BPR(), Stable(best=1, count=2, targets=2), _without_pool(self.star()), 4).loss_N
        assert only.mean().item() == pytest.approx(0.180925, abs=1e-6)

    def test_a_row_gives_any_of_its_best_and_nothing_else(self) -> None:
        batch = by_hand([1.0], [0.1, 0.9, 0.4, 0.8, 0.2], target=2)
        seen = set()
        for seed in range(60):
            negative_NK = Stable(best=3, count=1, targets=0)(_seeded(batch, seed)).negative_NK
            seen.add(round(negative_NK.item(), 6))
        assert seen == {0.9, 0.8, 0.2}


def _without_pool(batch: Standing) -> Standing:
    """Its pool holds what every row knows, so that no hard item is given."""
    return Standing(
        batch.user_ND, batch.item_CD, batch.item_C, batch.place_N, torch.tensor([1, 1]), batch.place_S[:0],
        batch.log_expected_S[:0], batch.log_expected_N,
    )  # fmt: skip


def _seeded(batch: Standing, seed: int) -> Standing:
    return Standing(
        batch.user_ND, batch.item_CD, batch.item_C, batch.place_N, batch.length_B, batch.place_S, batch.log_expected_S,
        batch.log_expected_N, seed,
    )  # fmt: skip


class TestCoupled:
    def test_weights_by_hand(self) -> None:
        score = torch.tensor([1.0, -torch.inf], dtype=torch.float64)
        assert Coupled(temperature=10).weight(score).tolist() == pytest.approx([2.105171, 1], abs=1e-6)
        assert Coupled(temperature=2).weight(score).tolist() == pytest.approx([2.648721, 1], abs=1e-6)

    def test_loss_by_hand(self) -> None:
        # (S of the negative, R of target less negative) = (1, 1), (-2, 4).
        weight_NS = Coupled(temperature=10).weight(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
        zeros = torch.zeros(2)
        positive_N, negative_NS = torch.tensor([4.0]).double(), torch.tensor([[3.0, 0.0]]).double()
        loss_N = BPR()(positive_N, negative_NS, zeros[:1], zeros, 4, weight_NS)
        assert loss_N.item() == pytest.approx(0.346240, abs=1e-6)

    def test_weights_are_clipped_without_overflow(self) -> None:
        score = torch.tensor([1e4, 5.0, -1e4])
        assert Coupled(temperature=1, clip=7).weight(score).tolist() == pytest.approx([7, 7, 1])
        assert Coupled(clip=1).weight(score).tolist() == [1, 1, 1]

    def test_weights_and_own_loss_are_those_of_the_two_models(self) -> None:
        batch = standing()
        spec = Coupled(count=5, temperature=3)
        selection = built(spec)
        against = selection(batch)
        chosen = batch.hardest(5)
        place_NK = batch.place_S[chosen.place_NK]
        seen_CF = selection.exposure_IF[batch.item_C]
        user_NR = batch.user_ND @ selection.user.weight.T
        item_CR = torch.cat([batch.item_CD, seen_CF], dim=1) @ selection.item.weight.T
        score_NC = user_NR @ item_CR.T + selection.visible(seen_CF).T
        noticed_NK, relevant_NK = score_NC.gather(1, place_NK), (batch.user_ND @ batch.item_CD.T).gather(1, place_NK)
        torch.testing.assert_close(against.weight_NK, (1 + (noticed_NK / 3).exp()).clamp(max=10))
        pair_NK = -torch.nn.functional.logsigmoid(score_NC.gather(1, batch.place_N[:, None]) - noticed_NK)
        torch.testing.assert_close(against.own_N, ((1 + (relevant_NK / 3).exp()).clamp(max=10) * pair_NK).mean(1))

    def test_selection_finds_what_is_in_sight(self) -> None:
        # Targets are the visible items, whatever the user: the selection model learns the exposure and not the noise.
        torch.manual_seed(0)
        exposure_IF = torch.cat([torch.zeros(2, 1), torch.linspace(-1.7, 1.7, C)[:, None]])
        selection = Coupled(count=20).build(D, exposure_IF)
        optimizer = torch.optim.Adam(selection.parameters(), lr=0.02)
        generator = Generator().manual_seed(3)
        every, length_B = torch.arange(C), torch.ones(32, dtype=torch.int64)
        for _ in range(60):
            user_ND, item_CD = torch.randn(32, D, generator=generator), torch.randn(C, D, generator=generator)
            place_N = torch.randint(C // 2, C, (32,), generator=generator)
            batch = Standing(user_ND, item_CD, every + 2, place_N, length_B, every, torch.zeros(C), torch.zeros(32))
            optimizer.zero_grad()
            selection(batch).own_N.mean().backward()
            optimizer.step()
        visible_C = selection.visible(exposure_IF[2:]).squeeze(1)
        assert visible_C[C // 2 :].min() > visible_C[: C // 2].mean()
        assert visible_C[-1] > visible_C[0]


class TestLambdaPairs:
    def loss(self, positive: float, negatives: list[float], **settings: Any) -> float:
        scores = torch.tensor([[positive, *negatives]], dtype=torch.float64)
        zeros = torch.zeros(len(negatives))
        return float(LambdaPairs(**settings)(scores[:, 0], scores[:, 1:], zeros[:1], zeros, 9).item())

    def test_by_hand(self) -> None:
        assert self.loss(2, [3, 1]) == pytest.approx((0.5 * 1.313262 + 0.313262 / 6) / 2, abs=1e-6)
        assert self.loss(2, [1, 3]) == pytest.approx(0.354421, abs=1e-6)
        assert self.loss(2, [1, -torch.inf, 3]) == pytest.approx(0.354421, abs=1e-6)

    def test_a_target_beyond_the_cut_still_pairs_with_those_within(self) -> None:
        # Ranks: negatives 1 and 2, the target third. With cut 2 its reciprocal rank is 0: weights 1 and 1/2.
        down = [1.313262, 0.974077]  # of score differences 1 and 0.5
        assert self.loss(0, [1, 0.5], cut=2) == pytest.approx((down[0] + down[1] / 2) / 2, abs=1e-6)
        # With cut 1 the second negative is beyond it, too, and a swap of the two changes nothing.
        assert self.loss(0, [1, 0.5], cut=1) == pytest.approx(down[0] / 2, abs=1e-6)

    def test_no_cut_weighs_all(self) -> None:
        expected = (1.313262 * (1 - 1 / 3) + 0.974077 * (1 / 2 - 1 / 3)) / 2
        assert self.loss(0, [1, 0.5], cut=None) == pytest.approx(expected, abs=1e-6)

    def test_weights_multiply(self) -> None:
        zeros, scores = torch.zeros(2), torch.tensor([[3.0, 1.0]])
        one_N = LambdaPairs()(torch.tensor([2.0]), scores, zeros[:1], zeros, 9, torch.tensor([[2.0, 0.0]]))
        assert one_N.item() == pytest.approx(0.5 * 1.313262, abs=1e-6)
