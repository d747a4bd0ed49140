"""Audio encoders of transformers in the published layouts: what they compute, alone, in batches and in windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from models.encoders.audio_transformer import AudioTransformer
from models.encoders.audio_windows import AudioWindows, padded_length
from models.files import CheckpointError
from models.published import published_architecture
from models.settings import AudioEncoderConfig

from .published_layouts import KINDS, RATES, WINDOWS_S, save_published


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("published")
    return {kind: save_published(kind, root / kind) for kind in KINDS}


def config_of(published: dict[str, Path], kind: str, **settings: Any) -> AudioEncoderConfig:
    return AudioEncoderConfig(backbone=f"hf:{published[kind]}", sample_rate=RATES[kind], **settings)


def noise(kind: str, seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.round(3000 * rng.normal(size=round(seconds * RATES[kind]))).astype(np.int16)


def by_hand(directory: Path, waveform: np.ndarray) -> torch.Tensor:
    """What a user of transformers computes of a clip that the model hears at once."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()
    samples = waveform / np.float32(32_768)
    inputs = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        if isinstance(model, transformers.ClapModel):
            pooled: torch.Tensor = model.audio_model(**inputs).pooler_output
            return pooled[0]
        if isinstance(model, transformers.WhisperModel):
            states = model.encoder(**inputs).last_hidden_state[0]
            return states[: int(np.ceil(len(states) * len(samples) / extractor.n_samples))].mean(0)
        output = model(**inputs)
        return output.pooler_output[0] if "pooler_output" in output else output.last_hidden_state[0].mean(0)


@torch.no_grad()
def embedded(encoder: AudioTransformer, *waveforms: np.ndarray) -> torch.Tensor:
    return encoder(*encoder.front_end.collate(waveforms))


@pytest.mark.parametrize("kind", KINDS)
def test_embeds_as_transformers_does_by_hand(published: dict[str, Path], kind: str) -> None:
    encoder = AudioTransformer.create(config_of(published, kind)).eval()
    for seconds in (0.3, 0.6):
        waveform = noise(kind, seconds)
        found = embedded(encoder, waveform)[0]
        assert found.shape == (encoder.dim,)
        torch.testing.assert_close(found, by_hand(published[kind], waveform), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_is_embedded_the_same_alone_and_in_any_batch(published: dict[str, Path], kind: str) -> None:
    encoder = AudioTransformer.create(config_of(published, kind)).eval()
    clips = [noise(kind, seconds, seed) for seed, seconds in enumerate((0.01, 0.3, 0.3, 0.61, 1.5, 2.4))]
    together = embedded(encoder, *clips)
    alone = torch.cat([embedded(encoder, clip) for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert torch.pdist(alone).min() > 1e-4, "clips are told apart"


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_clip_is_the_mean_of_its_windows_by_length(published: dict[str, Path], kind: str) -> None:
    settings = {} if kind in WINDOWS_S else {"window_s": 0.5}
    encoder = AudioTransformer.create(config_of(published, kind, **settings)).eval()
    window = round(WINDOWS_S.get(kind, 0.5) * RATES[kind])
    if kind == "ast":
        window = 63 * 160 + 400  # 64 frames of 25 ms, every 10 ms
    assert encoder.front_end.window == window
    clip = noise(kind, 2.5 * window / RATES[kind])
    parts = [clip[:window], clip[window : 2 * window], clip[2 * window :]]
    by_part = torch.stack([by_hand(published[kind], part) for part in parts])
    weights = torch.tensor([len(part) / len(clip) for part in parts])
    torch.testing.assert_close(embedded(encoder, clip)[0], weights @ by_part, atol=1e-5, rtol=1e-4)


def test_windows_of_the_published_feature_extractors() -> None:
    """AST hears 10.24 s, CLAP 10 s and Whisper 30 s at once; wav2vec's extractor sets no limit."""
    assert padded_length(transformers.ASTFeatureExtractor()) == 1023 * 160 + 400
    assert padded_length(transformers.ClapFeatureExtractor()) == 10 * 48_000
    assert padded_length(transformers.WhisperFeatureExtractor()) == 30 * 16_000
    assert padded_length(transformers.Wav2Vec2FeatureExtractor()) is None


def test_a_full_window_of_ast_fills_its_spectrogram(published: dict[str, Path]) -> None:
    front_end = AudioWindows.of(config_of(published, "ast"))
    padding = (0.0 - front_end.extractor.mean) / (2 * front_end.extractor.std)
    full = front_end.features(front_end.cut(noise("ast", 0.655))[0])
    assert full.shape == (64, 32)
    assert not np.isclose(full[-1], padding).all()
    assert np.isclose(front_end.features(front_end.cut(noise("ast", 0.644))[0])[-1], padding).all()


@pytest.mark.parametrize("kind", ["ast", "clap", "whisper", "wav2vec2"])
@pytest.mark.parametrize("finetuning", ["full", "lora"])
def test_trains(published: dict[str, Path], kind: str, finetuning: str) -> None:
    torch.manual_seed(0)
    encoder = AudioTransformer.create(config_of(published, kind, finetuning=finetuning)).train()
    batch = encoder.front_end.collate([noise(kind, seconds, seed) for seed, seconds in enumerate((0.3, 1.5, 0.3, 1.0))])
    target = torch.randn(4, encoder.dim)
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    losses = []
    for _ in range(15):
        loss = (encoder(*batch) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", ["clap"])
def test_statistics_of_batch_norms_stay_as_published(published: dict[str, Path], kind: str) -> None:
    encoder = AudioTransformer.create(config_of(published, kind)).train()
    before = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder(*encoder.front_end.collate([noise(kind, 0.5), noise(kind, 0.9)]))
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.named_buffers())


@pytest.mark.parametrize("kind", KINDS)
def test_loads_without_the_published_directory(published: dict[str, Path], kind: str, tmp_path: Path) -> None:
    config = config_of(published, kind)
    encoder = AudioTransformer.create(config).eval()
    encoder.save_layout(tmp_path)
    gone = config.model_copy(update={"backbone": "hf:nobody/nothing"})
    again = AudioTransformer.empty(gone, 0, tmp_path).eval()
    again.load_state_dict(encoder.state_dict())
    clip = noise(kind, 1.2)
    assert torch.equal(embedded(again, clip), embedded(encoder, clip))


@pytest.mark.parametrize("kind", KINDS)
def test_depths_of_layers_count_from_the_output(published: dict[str, Path], kind: str) -> None:
    encoder = AudioTransformer.create(config_of(published, kind))
    depths = encoder.layer_depths()
    assert depths.keys() == {name for name, _ in encoder.named_parameters()}
    assert set(depths.values()) == set(range(1, encoder.model.config.num_hidden_layers + 2))


def test_freezes_the_deepest_layers(published: dict[str, Path]) -> None:
    encoder = AudioTransformer.create(config_of(published, "ast", frozen_layers=2))
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, depth in encoder.layer_depths().items() if depth == 1}
    with pytest.raises(ValueError, match="frozen_layers: found 3, expected fewer than its 3 layers"):
        AudioTransformer.create(config_of(published, "ast", frozen_layers=3))


def test_a_frozen_encoder_has_no_dropout_and_trains_nothing(published: dict[str, Path]) -> None:
    encoder = AudioTransformer.create(config_of(published, "wav2vec2", finetuning="frozen")).train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    clip = noise("wav2vec2", 1.0)
    assert torch.equal(embedded(encoder, clip), embedded(encoder, clip))


def test_merged_adapters_compute_the_same_with_plain_weights(published: dict[str, Path]) -> None:
    encoder = AudioTransformer.create(config_of(published, "whisper", finetuning="lora", lora_rank=2))
    plain = AudioTransformer.create(config_of(published, "whisper"))
    torch.manual_seed(0)
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        if parameter.requires_grad:
            parameter.data.normal_(std=0.3)
    clip = noise("whisper", 0.7)
    adapted = embedded(encoder.eval(), clip)
    assert not torch.allclose(adapted, embedded(plain.eval(), clip), atol=1e-3)
    encoder.merge_adapters()
    assert encoder.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(embedded(encoder, clip), adapted, atol=1e-5, rtol=1e-4)


def test_a_layout_has_the_sizes_and_no_weights(published: dict[str, Path]) -> None:
    encoder = AudioTransformer.layout(config_of(published, "clap"))
    assert all(parameter.is_meta for parameter in encoder.parameters())
    wanted = AudioTransformer.create(config_of(published, "clap")).state_dict()
    assert {name: tensor.shape for name, tensor in encoder.state_dict().items()} == {
        name: tensor.shape for name, tensor in wanted.items()
    }


@pytest.mark.parametrize(("name", "parameters"), [("tiny", 8_208_384), ("base", 20_590_592), ("small", 88_154_112)])
def test_sizes_of_whispers_encoder_are_known_without_its_files(name: str, parameters: int) -> None:
    """Those of Whisper's checkpoints on the hub, without their decoders."""
    encoder = AudioTransformer.layout(AudioEncoderConfig(backbone=f"hf:openai/whisper-{name}"))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("laion/clap-htsat-unfused", 153_492_890),
        ("openai/whisper-tiny", 37_760_640),
        ("openai/whisper-base", 72_593_920),
        ("openai/whisper-small", 241_734_912),
        ("facebook/wav2vec2-base", 94_371_712),
    ],
)
def test_published_models_have_their_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(published_architecture(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_windows_of_ast_and_clap_are_known_without_their_files() -> None:
    ast = AudioTransformer.layout(AudioEncoderConfig(backbone="hf:MIT/ast-finetuned-audioset-10-10-0.4593"))
    assert ast.front_end.window == 164_080
    assert ast.dim == 768
    clap = AudioTransformer.layout(AudioEncoderConfig(backbone="hf:laion/clap-htsat-unfused", sample_rate=48_000))
    assert clap.front_end.window == 480_000
    assert clap.dim == 768


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("clap", {"sample_rate": 16_000}, "sample_rate: found 16000, expected 48000, the sampling rate of the feature"),
        ("whisper", {"window_s": 2.0}, "window_s: found 2, expected at most 1, which is what"),
    ],
)
def test_settings_that_do_not_fit_the_feature_extractor_are_refused(
    published: dict[str, Path], kind: str, settings: dict[str, Any], message: str
) -> None:
    config = config_of(published, kind).model_copy(update=settings)
    with pytest.raises(ValueError, match=message):
        AudioTransformer.create(config)


def test_missing_weights_are_refused(published: dict[str, Path], tmp_path: Path) -> None:
    directory = save_published("ast", tmp_path / "ast")
    model = transformers.AutoModel.from_pretrained(directory)
    state = {name: tensor for name, tensor in model.state_dict().items() if "layernorm." not in name}
    model.save_pretrained(directory, state_dict=state)
    with pytest.raises(CheckpointError, match="no weights of"):
        AudioTransformer.create(config_of({"ast": directory}, "ast"))


def test_what_is_no_audio_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{tmp_path}: cannot be read"):
        AudioTransformer.create(AudioEncoderConfig(backbone=f"hf:{tmp_path}"))
