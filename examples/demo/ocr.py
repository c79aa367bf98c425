"""Text in pictures: RapidOCR (ONNX, on the CPU) behind a litplex endpoint.

Send the picture as the body (`Content-Type: image/png`) or as the multipart file "image", whose
name is the name of the page.
"""

import time

import litplex as ls


class OcrAPI(ls.LitAPI):
    def setup(self, device):
        # Imported here, so that only the environment of this endpoint needs RapidOCR.
        from rapidocr_onnxruntime import RapidOCR
        from rapidocr_onnxruntime.utils.load_image import LoadImageError

        self.engine = RapidOCR()
        self.unreadable = (LoadImageError, OSError)

    def decode_request(self, request):
        image = request.get("image") if isinstance(request, dict) else request
        page = getattr(image, "filename", None) or ""
        if hasattr(image, "read"):
            image = image.read()
        if not isinstance(image, (bytes, bytearray, memoryview)):
            raise ls.HTTPException(422, 'send the picture as the body or as the file "image"')
        return page, bytes(image)

    def predict(self, page_and_image):
        page, image = page_and_image
        started = time.perf_counter()
        try:
            found, _ = self.engine(image)
        except self.unreadable as error:
            raise ls.HTTPException(422, "this is not a picture I can read") from error
        return {
            "page": page,
            "lines": [line(*parts) for parts in found or []],
            "milliseconds": round((time.perf_counter() - started) * 1000, 1),
        }


def line(box, text, score):
    corners = [[round(x), round(y)] for x, y in box]
    return {"text": text, "score": round(float(score), 4), "box": corners}
