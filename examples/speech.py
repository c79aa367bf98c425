"""Speech to text with Whisper in transformers.

    pip install litplex torch transformers av
    python examples/speech.py openai/whisper-tiny

The model is a folder, or a name on the Hugging Face Hub. Send a recording, of any format that
FFmpeg reads, as the body or as a form's file `file`:

    curl localhost:8000/transcribe -H 'Content-Type: audio/wav' --data-binary @talk.wav
    curl localhost:8000/transcribe -F file=@talk.mp3
"""

import argparse
import io
import os

import litplex as ls

# What the model was trained on.
RATE = 16_000


class WhisperAPI(ls.LitAPI):
    def __init__(self, model):
        super().__init__()
        self.name = model

    def setup(self, device):
        # Imported here, the libraries are loaded by the worker alone.
        from transformers import pipeline

        # Longer recordings than the 30 s that the model hears at once are cut into such.
        self.model = pipeline(
            "automatic-speech-recognition", self.name, device=device, chunk_length_s=30
        )

    def decode_request(self, request):
        audio = request.get("file") if isinstance(request, dict) else request
        if isinstance(audio, ls.UploadFile):
            audio = audio.read()
        if not isinstance(audio, (bytes, bytearray, memoryview)):
            raise ls.HTTPException(422, "send the recording as the body, or as the file `file`")
        return samples_of(bytes(audio))

    def predict(self, samples):
        heard = self.model({"raw": samples, "sampling_rate": RATE})
        return {"text": heard["text"].strip(), "seconds": round(len(samples) / RATE, 2)}


def samples_of(audio):
    """Returns a recording as samples from -1 to 1, of one channel, at the model's rate."""
    import av
    import numpy

    try:
        with av.open(io.BytesIO(audio)) as recording:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            frames = [
                part.to_ndarray()[0]
                for frame in [*recording.decode(audio=0), None]
                for part in resampler.resample(frame)
            ]
    except (av.FFmpegError, IndexError):
        raise ls.HTTPException(422, "this is not a recording that can be read") from None
    if not frames:
        raise ls.HTTPException(422, "the recording is empty")
    return numpy.concatenate(frames)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes down what is said in recordings.")
    parser.add_argument("model", help="a folder, or a name on the Hugging Face Hub")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    # A model's folder is named from where this is started, and not from where this file lies.
    server = ls.LitServer(WhisperAPI(args.model), path="/transcribe", cwd=os.getcwd(), timeout=300)
    server.run(port=args.port)
