"""Text in pictures with RapidOCR, which contains its models and runs on the CPU.

    pip install litplex rapidocr-onnxruntime
    python examples/ocr.py

Send the picture as the body, or as a form's file `image`:

    curl localhost:8000/ocr -H 'Content-Type: image/png' --data-binary @invoice.png
    curl localhost:8000/ocr -F image=@photo.jpg
"""

import argparse

import litplex as ls


class OcrAPI(ls.LitAPI):
    def setup(self, device):
        # Imported here, so that only the worker loads the library.
        from rapidocr_onnxruntime import RapidOCR
        from rapidocr_onnxruntime.utils.load_image import LoadImageError

        self.engine = RapidOCR(intra_op_num_threads=self.threads)
        self.unreadable = (LoadImageError, OSError)

    def decode_request(self, request):
        image = request.get("image") if isinstance(request, dict) else request
        if isinstance(image, ls.UploadFile):
            image = image.read()
        if not isinstance(image, (bytes, bytearray, memoryview)):
            raise ls.HTTPException(422, "send the picture as the body, or as the file `image`")
        return bytes(image)

    def predict(self, image):
        try:
            found, _ = self.engine(image)
        except self.unreadable:
            raise ls.HTTPException(422, "this is not a picture that can be read") from None
        return [
            {"text": text, "score": round(float(score), 3), "box": box}
            for box, text, score in found or []
        ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Reads the text in pictures.")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    ls.LitServer(OcrAPI(), path="/ocr", timeout=60).run(port=args.port)
