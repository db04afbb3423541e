"""Encoders against torch's own modules with the same weights, and dialogues that must not see one another."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ada2i.batch import Layout
from ada2i.model.encoders import Encoder, LstmEncoder, SeesPadding, TransformerEncoder, head_count
from tests.unit.model.batches import random_rows

LENGTHS = (3, 1, 7, 4)
WIDTH, HIDDEN = 12, 5


def encode(encoder: Encoder, rows: Tensor, layout: Layout) -> Tensor:
    return encoder(rows, layout, torch.zeros(len(rows), dtype=torch.int64), None)


def transformer(width: int = WIDTH) -> TransformerEncoder:
    torch.manual_seed(0)
    encoder = TransformerEncoder(
        width=width,
        hidden_dim=HIDDEN,
        layers=2,
        feedforward_dim=16,
        dropout=0.0,
    )
    for parameter in encoder.parameters():  # layers start equal, biases zero: neither may hide a mistake
        nn.init.normal_(parameter, std=0.4)
    return encoder


def torch_encoder(ours: TransformerEncoder, width: int = WIDTH) -> nn.TransformerEncoder:
    """Return torch's own encoder with the weights of ours."""
    layer = nn.TransformerEncoderLayer(width, head_count(width), dim_feedforward=16, dropout=0.0, batch_first=True)
    theirs = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        state = mine.state_dict()
        names = {
            "attention_in.": "self_attn.in_proj_",
            "attention_out.": "self_attn.out_proj.",
            "expand.": "linear1.",
            "contract.": "linear2.",
            "attention_norm.": "norm1.",
            "feedforward_norm.": "norm2.",
        }
        other.load_state_dict(
            {new + name.removeprefix(old): x for name, x in state.items() for old, new in names.items() if old in name}
        )
    return theirs


def grid(rows: Tensor) -> Tensor:
    return pad_sequence(list(torch.split(rows, list(LENGTHS))), batch_first=True)


@pytest.mark.parametrize("width", [12, 7, 13, 17])  # 6, 7, 13 heads and one
@pytest.mark.parametrize("training", [True, False])
def test_masked_equals_torch_with_a_padding_mask(width: int, *, training: bool) -> None:
    layout = Layout(LENGTHS, 7)
    ours = transformer(width).train(training)
    theirs = torch_encoder(ours, width).train(training)
    rows = random_rows(15, width, seed=1)
    encoded = theirs(grid(rows), src_key_padding_mask=~layout.occupied)
    wanted = ours.project(encoded[layout.occupied])
    torch.testing.assert_close(encode(ours, rows, layout), wanted, atol=1e-6, rtol=0)


def test_masked_has_the_gradients_of_torch() -> None:
    layout = Layout(LENGTHS, 7)
    ours = transformer()
    theirs = torch_encoder(ours)
    rows, same = (random_rows(15, WIDTH, seed=1).requires_grad_() for _ in range(2))
    pull = random_rows(15, HIDDEN, seed=2)
    (encode(ours, rows, layout) * pull).sum().backward()  # type: ignore[no-untyped-call]
    encoded = theirs(grid(same), src_key_padding_mask=~layout.occupied)
    (ours.project(encoded[layout.occupied]) * pull).sum().backward()
    assert rows.grad is not None
    assert same.grad is not None
    torch.testing.assert_close(rows.grad, same.grad, atol=1e-5, rtol=1e-5)
    first, other = ours.layers[0].get_parameter("attention_in.weight"), theirs.layers[0].self_attn.in_proj_weight
    assert isinstance(other, nn.Parameter)
    torch.testing.assert_close(first.grad, other.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded_length", [7, 9])
def test_attending_to_padding_equals_torch_without_a_mask(padded_length: int) -> None:
    ours = transformer().eval()
    rows = random_rows(15, WIDTH, seed=1)
    padded = torch.cat([grid(rows), torch.zeros(len(LENGTHS), padded_length - 7, WIDTH)], dim=1)
    wanted = ours.project(torch_encoder(ours).eval()(padded)).flatten(0, 1)
    found = encode(SeesPadding(ours), rows, Layout(LENGTHS, padded_length))
    assert found.shape == (len(LENGTHS) * padded_length, HIDDEN)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_a_dialogue_does_not_depend_on_its_mates(kind: str) -> None:
    encoder: TransformerEncoder | LstmEncoder = transformer() if kind == "transformer" else lstm()
    rows = random_rows(15, WIDTH, seed=1)
    together = torch.split(encode(encoder.eval(), rows, Layout(LENGTHS, 11)), list(LENGTHS))
    for length, alone, found in zip(LENGTHS, torch.split(rows, list(LENGTHS)), together, strict=True):
        torch.testing.assert_close(encode(encoder, alone, Layout((length,), length)), found, atol=1e-6, rtol=0)


def test_attending_to_padding_does_depend_on_mates() -> None:
    encoder = SeesPadding(transformer().eval())
    rows = random_rows(3, WIDTH, seed=1)
    gap = encode(encoder, rows, Layout((3,), 3)) - encode(encoder, rows, Layout((3,), 9))[:3]
    assert gap.abs().max() > 1e-3


def test_layers_start_equal_as_in_torch() -> None:
    torch.manual_seed(3)
    encoder = TransformerEncoder(width=10, hidden_dim=4, layers=3, feedforward_dim=8, dropout=0.1)
    first, *others = [layer.state_dict() for layer in encoder.layers]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    pointers = {parameter.data_ptr() for parameter in encoder.parameters()}
    assert len(pointers) == len(list(encoder.parameters()))  # equal, not shared


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(width=10, hidden_dim=4, layers=2, feedforward_dim=8, dropout=0.5)
    rows, layout = random_rows(15, 10, seed=1), Layout(LENGTHS, 7)
    assert not torch.equal(encode(encoder, rows, layout), encode(encoder, rows, layout))
    encoder.eval()
    assert torch.equal(encode(encoder, rows, layout), encode(encoder, rows, layout))


@pytest.mark.parametrize(
    ("width", "heads"),
    [(768, 6), (512, 8), (1024, 8), (300, 5), (342, 6), (100, 5), (5, 5), (13, 13), (14, 7), (74, 1), (17, 1), (1, 1)],
)
def test_head_count(width: int, heads: int) -> None:
    assert head_count(width) == heads


def lstm(layers: int = 2) -> LstmEncoder:
    torch.manual_seed(0)
    return LstmEncoder(width=WIDTH, hidden_dim=6, layers=layers, dropout=0.0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("padded_length", [7, 9])
def test_lstm_equals_one_run_per_dialogue(layers: int, padded_length: int) -> None:
    encoder = lstm(layers)
    plain = nn.LSTM(WIDTH, 3, num_layers=layers, bidirectional=True)
    plain.load_state_dict(encoder.lstm.state_dict())
    rows = random_rows(15, WIDTH, seed=1)
    wanted = torch.cat([plain(dialogue[:, None])[0][:, 0] for dialogue in torch.split(rows, list(LENGTHS))])
    torch.testing.assert_close(encode(encoder, rows, Layout(LENGTHS, padded_length)), wanted, atol=1e-6, rtol=0)
