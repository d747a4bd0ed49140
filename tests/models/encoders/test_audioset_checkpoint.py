"""The published ConvNeXt-Tiny AudioSet weights: files of exactly their names and shapes, with random numbers."""

from pathlib import Path

import pytest
import torch
from published_weights import DEPTHS, DIMS, audioset_convnext, audioset_convnext_shapes
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, gelu, linear, pad

from models.encoders.audio import AudioEncoder
from models.files import CheckpointError
from models.retriever.model import Retriever
from models.settings import AudioEncoderConfig, LogMelConfig, RetrieverConfig, TextEncoderConfig

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> State:
    torch.manual_seed(0)
    return audioset_convnext()


def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layer norm of x [..., C], eps 1e-6."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def over_channels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same of x [B, C, T, F]."""
    return normalised(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def published_embedding(w: State, log_mel: Tensor) -> tuple[Tensor, list[tuple[int, ...]]]:
    """The scene embedding of log_mel [frames, 224], step by step, and the shape of each stage's map."""
    x = (log_mel - w["bn0.running_mean"]) / (w["bn0.running_var"] + 1e-5).sqrt() * w["bn0.weight"] + w["bn0.bias"]
    x, shapes = pad(x, (0, 0, 4, 4))[None, None], []
    for i in range(4):
        down = f"downsample_layers.{i}"
        if i == 0:
            x = conv2d(x, w[f"{down}.0.weight"], w[f"{down}.0.bias"], stride=4)
            x = over_channels(x, w[f"{down}.1.weight"], w[f"{down}.1.bias"])
        else:
            x = over_channels(x, w[f"{down}.0.weight"], w[f"{down}.0.bias"])
            x = conv2d(x, w[f"{down}.1.weight"], w[f"{down}.1.bias"], stride=2)
        shapes.append(tuple(x.shape))
        for j in range(DEPTHS[i]):
            block = {
                name.removeprefix(f"stages.{i}.{j}."): tensor for name, tensor in w.items() if f"s.{i}.{j}." in name
            }
            h = conv2d(x, block["dwconv.weight"], block["dwconv.bias"], padding=3, groups=DIMS[i]).permute(0, 2, 3, 1)
            h = normalised(h, block["norm.weight"], block["norm.bias"])
            h = linear(gelu(linear(h, block["pwconv1.weight"], block["pwconv1.bias"])), block["pwconv2.weight"])
            x = x + (block["gamma"] * (h + block["pwconv2.bias"])).permute(0, 3, 1, 2)
    x = x.mean(3)
    return normalised(x.amax(2) + x.mean(2), w["norm.weight"], w["norm.bias"])[0], shapes


def test_the_count_of_parameters_is_the_published_one(weights: State) -> None:
    shapes = audioset_convnext_shapes()
    assert sum(weights[name].numel() for name in shapes) == 28_222_767
    frozen = sum(tensor.numel() for name, tensor in weights.items() if "extractor" in name)
    assert 28_222_767 + frozen == 29_388_303


@pytest.mark.parametrize("layout", ["zenodo", "hub"])
def test_embeds_as_the_publication_does(weights: State, layout: str, tmp_path: Path) -> None:
    if layout == "zenodo":
        path = tmp_path / "convnext_tiny_471mAP.pth"
        torch.save({"model": weights}, path)
    else:
        path = tmp_path
        save_file(weights, tmp_path / "model.safetensors")
    encoder = AudioEncoder.create(AudioEncoderConfig(checkpoint=str(path)), n_mels=224).eval()
    found: list[tuple[int, ...]] = []
    for stage in encoder.trunk.stages:
        stage.blocks[0].register_forward_hook(lambda _module, _inputs, output: found.append(tuple(output.shape)))
    log_mel = 30 * torch.randn(1001, 224) - 50
    with torch.no_grad():
        embedding = encoder(log_mel[None], torch.tensor([1001]))
        expected, shapes = published_embedding(weights, log_mel)
    torch.testing.assert_close(embedding[0], expected, atol=1e-4, rtol=1e-4)
    assert found == shapes == [(1, 96, 252, 56), (1, 192, 126, 28), (1, 384, 63, 14), (1, 768, 31, 7)]


@pytest.mark.parametrize(
    ("change", "backbone", "message"),
    [
        (("stages.2.8.gamma", None), "convnext_tiny", "missing trunk.stages.2.blocks.8.gamma$"),
        (("bn0.running_var", None), "convnext_tiny", "missing bn0.running_var$"),
        (("norm.weight", torch.ones(767)), "convnext_tiny", r"head.norm.weight is \[767\], expected \[768\]"),
        (
            ("decoder.weight", torch.ones(2)),
            "convnext_tiny",
            "'decoder.weight', which is not a tensor of the published",
        ),
        (("stages.3.3.gamma", torch.ones(768)), "convnext_tiny", "unexpected trunk.stages.3.blocks.3.gamma"),
        (("norm.weight", torch.ones(768)), "convnext_small", r"missing trunk.stages.2.blocks.9.* and \d+ more"),
        (("norm.weight", torch.ones(768)), "resnet18", r"missing trunk.conv1.weight"),
    ],
)
def test_what_does_not_fit_is_named(
    weights: State, change: tuple[str, Tensor | None], backbone: str, message: str, tmp_path: Path
) -> None:
    name, tensor = change
    state = {key: value for key, value in weights.items() if key != name} | ({} if tensor is None else {name: tensor})
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        AudioEncoder.create(AudioEncoderConfig(backbone=backbone, checkpoint=str(tmp_path)), n_mels=224)


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    torch.save({"state_dict": {}}, tmp_path / "other.pth")
    for name, message in [
        ("absent.pth", "no such file"),
        ("text.pth", "cannot be read as weights"),
        ("text.safetensors", "cannot be read as weights"),
        ("other.pth", "expected a dictionary with tensors in 'model'"),
    ]:
        with pytest.raises(CheckpointError, match=f"{name}: .*{message}"):
            AudioEncoder.create(AudioEncoderConfig(checkpoint=str(tmp_path / name)), n_mels=224)


def test_a_retriever_starts_from_the_checkpoint_and_loads_without_it(weights: State, tmp_path: Path) -> None:
    checkpoint = tmp_path / "weights.pth"
    torch.save({"model": weights}, checkpoint)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = RetrieverConfig(
        audio_encoder=AudioEncoderConfig(checkpoint=str(checkpoint)),
        text_encoder=TextEncoderConfig(name="random:bert", sizes=sizes, vocab_size=40),
        joint_dim=8,
        hidden_dim=8,
        log_mel=LogMelConfig(),
    )
    Retriever.create(config, ["a dog barks"]).save(tmp_path / "member")
    checkpoint.unlink()
    loaded = Retriever.load(tmp_path / "member").state_dict()
    assert torch.equal(loaded["audio_encoder.trunk.stem.0.weight"], weights["downsample_layers.0.0.weight"])


def test_other_log_mels_than_the_checkpoints_are_refused() -> None:
    with pytest.raises(ValueError, match="'hop_length': 640"):
        RetrieverConfig(audio_encoder=AudioEncoderConfig(checkpoint="any"), log_mel=LogMelConfig(hop_length=640))
