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

# The sampling rate of the model's training, in Hz.
RATE = 16_000


class WhisperAPI(ls.LitAPI):
    def __init__(self, model):
        super().__init__()
        self.name = model

    def setup(self, device):
        # Imported here, so that only the worker loads the libraries.
        from transformers import pipeline

        # The model takes at most 30 s at once; longer recordings are cut.
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
    """Returns a recording as an array of samples from -1 to 1, one channel, at the model's rate."""
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
    # The folder of the model is relative to the working directory, not to this file.
    server = ls.LitServer(WhisperAPI(args.model), path="/transcribe", cwd=os.getcwd(), timeout=300)
    server.run(port=args.port)
