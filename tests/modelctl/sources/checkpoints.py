"""Small checkpoints in the hub's own format, their weights from a seed and wide enough apart for clear margins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

LABELS = ["alpha", "beta", "gamma", "delta"]
TEXTS = (Path(__file__).parents[3] / "modelctl" / "samples" / "texts.txt").read_text("utf-8").splitlines()
QUERIES = 10
"""Of every detector."""


def spread(model: Any, std: float = 0.3) -> Any:
    """Give every matrix weights of one spread, since fresh ones make all scores alike."""
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=std)
        elif "class" in name:
            torch.nn.init.zeros_(parameter)
        elif "bbox" in name and parameter.shape == (4,):
            parameter.data[2:] = 2  # boxes of a size that can be compared
    return model.eval()


SINGLE = {"problem_type": "single_label_classification"}


def named(count: int = len(LABELS)) -> dict[str, Any]:
    """Return the configuration's part about classes."""
    labels = LABELS[:count]
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def word_piece(vocabulary: int) -> tuple[Tokenizer, dict[str, str]]:
    """Return a WordPiece tokenizer as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return tokenizer, names


def byte_pairs(vocabulary: int) -> tuple[Tokenizer, dict[str, str]]:
    """Return a byte-level BPE tokenizer as RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    return tokenizer, names


def unigram(vocabulary: int) -> tuple[Tokenizer, dict[str, str]]:
    """Return a Unigram tokenizer as XLM-RoBERTa's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=vocabulary, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    return tokenizer, names


def text(config: Any, make: Callable[[int], tuple[Tokenizer, dict[str, str]]], limit: int) -> Callable[[Path], None]:
    """Return what writes a text classifier with its tokenizer."""

    def write(folder: Path) -> None:
        tokenizer, names = make(config.vocab_size)
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **names)
        fast.save_pretrained(folder)
        spread(transformers.AutoModelForSequenceClassification.from_config(config)).save_pretrained(folder)

    return write


def picture(
    auto: Any, config: Callable[[], Any], processor: Callable[[], Any], std: float = 0.3
) -> Callable[[Path], None]:
    """Return what writes a model for pictures with its processor."""

    def write(folder: Path) -> None:
        spread(auto.from_config(config()), std).save_pretrained(folder)
        processor().save_pretrained(folder)

    return write


SMALL_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
BERT = transformers.BertConfig(vocab_size=200, max_position_embeddings=64, **SMALL_TEXT, **SINGLE, **named(3))
ROBERTA = transformers.RobertaConfig(
    vocab_size=320, max_position_embeddings=42, pad_token_id=1, **SMALL_TEXT, **SINGLE, **named()
)
XLM_R = transformers.XLMRobertaConfig(
    vocab_size=200,
    max_position_embeddings=66,
    pad_token_id=1,
    problem_type="multi_label_classification",
    **SMALL_TEXT,
    **named(),
)
DISTIL = transformers.DistilBertConfig(
    vocab_size=200, max_position_embeddings=64, dim=32, n_layers=2, n_heads=2, hidden_dim=64, **named(2)
)
DEBERTA = transformers.DebertaV2Config(
    vocab_size=200,
    max_position_embeddings=64,
    relative_attention=True,
    position_buckets=16,
    pos_att_type=["p2c", "c2p"],
    **SMALL_TEXT,
    **SINGLE,
    **named(3),
)

CLASSIFIER = transformers.AutoModelForImageClassification
DETECTOR = transformers.AutoModelForObjectDetection
DETR_SIZES = {
    "d_model": 32,
    "num_queries": QUERIES,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "encoder_ffn_dim": 32,
}


def resnet() -> Any:
    return transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **named()
    )


def vit() -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.ViTConfig(image_size=64, patch_size=16, **sizes, **named())


def rt_detr_sizes() -> dict[str, Any]:
    return {
        **DETR_SIZES,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [16, 32, 64],
        "decoder_in_channels": [32, 32, 32],
        "num_denoising": 0,
        **named(),
    }


def rt_detr() -> Any:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 32, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return transformers.RTDetrConfig(backbone_config=backbone, **rt_detr_sizes())


def d_fine() -> Any:
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 32, 64],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=[16, 32, 64, 64],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 64],
        embedding_size=8,
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    return transformers.DFineConfig(
        backbone_config=backbone, **{**rt_detr_sizes(), "encoder_in_channels": [32, 64, 64]}
    )


def rf_detr() -> Any:
    backbone = transformers.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=16,
        image_size=64,
        num_windows=1,
        out_features=["stage1", "stage2"],
        mlp_ratio=2,
    )
    return transformers.RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        num_queries=QUERIES,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        hidden_expansion=0.5,
        c2f_num_blocks=1,
        **named(),
    )


def detr() -> Any:
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    sizes = {**DETR_SIZES, "encoder_layers": 2}
    none = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return transformers.DetrConfig(backbone_config=backbone, **none, **sizes, **named())


def yolos() -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.YolosConfig(
        image_size=[64, 96], patch_size=16, num_detection_tokens=QUERIES, **sizes, **named()
    )


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


PICTURES = {
    "resnet": picture(CLASSIFIER, resnet, lambda: transformers.ConvNextImageProcessorPil(size={"shortest_edge": 64})),
    "vit": picture(CLASSIFIER, vit, lambda: transformers.ViTImageProcessorPil(size=square(64))),
    "vit_cropped": picture(
        CLASSIFIER,
        vit,
        lambda: transformers.ViTImageProcessorPil(size=square(73), do_center_crop=True, crop_size=square(64)),
    ),
    "rt_detr": picture(DETECTOR, rt_detr, lambda: transformers.RTDetrImageProcessorPil(size=square(64))),
    "d_fine": picture(DETECTOR, d_fine, lambda: transformers.RTDetrImageProcessorPil(size=square(64))),
    "rf_detr": picture(DETECTOR, rf_detr, lambda: transformers.DeformableDetrImageProcessorPil(size=square(64))),
    "detr": picture(
        DETECTOR, detr, lambda: transformers.DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    ),
    "yolos": picture(
        DETECTOR, yolos, lambda: transformers.YolosImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    ),
}
TEXT = {
    "bert": text(BERT, word_piece, 64),
    "roberta": text(ROBERTA, byte_pairs, 10**30),
    "xlm_roberta": text(XLM_R, unigram, 64),
    "distilbert": text(DISTIL, word_piece, 64),
    "deberta": text(DEBERTA, unigram, 64),
}
