"""Draws three pages: a clean invoice, a second one like a photograph of a phone, and notes.

`make_images.py FOLDER` writes FOLDER/invoice.png, FOLDER/photo.jpg and FOLDER/notes.png.
"""

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAGE = (1000, 1180)
INK, GREY, PAPER = (28, 30, 36), (120, 124, 132), (252, 252, 250)
LEFT, RIGHT = 80, 920


@dataclass(frozen=True)
class Invoice:
    number: str
    date: str
    items: tuple
    subtotal: str
    tax: str
    total: str


CLEAN = Invoice(
    number="INV-2041",
    date="14 March 2025",
    items=(
        ("Oak desk, 160 x 80 cm", "2", "840.00"),
        ("Desk lamp, warm white", "4", "156.00"),
        ("Cable tray, 120 cm", "2", "58.00"),
        ("Delivery and assembly", "1", "95.00"),
    ),
    subtotal="1,149.00",
    tax="218.31",
    total="1,367.31",
)
PHOTOGRAPHED = Invoice(
    number="INV-2042",
    date="21 March 2025",
    items=(
        ("Paper, 500 sheets", "10", "49.00"),
        ("Printer toner, black", "3", "207.00"),
        ("Whiteboard markers", "6", "14.40"),
    ),
    subtotal="270.40",
    tax="51.38",
    total="321.78",
)
NOTES = (
    "The oak desks arrive on 2 April between nine and noon. Two people carry them to the third "
    "floor and take the packaging away.",
    "The spare keys of the cabinets are in the blue box at the reception. If the box is locked, "
    "ask Marta Lindqvist.",
    "The new printer stands beside the kitchen. One toner lasts for about three thousand pages.",
    "The canteen is closed in the first week of April. A food truck comes to the yard at half "
    "past twelve.",
)


def draw(invoice):
    page = Image.new("RGB", PAGE, PAPER)
    pen = ImageDraw.Draw(page)

    def text(x, y, words, size=28, fill=INK, anchor="la"):
        pen.text((x, y), words, font=ImageFont.load_default(size), fill=fill, anchor=anchor)

    def row(y, left, right, size=28):
        text(LEFT, y, left, size)
        text(RIGHT, y, right, size, anchor="ra")

    text(LEFT, 80, "INVOICE", 64)
    text(LEFT, 190, "Invoice number", fill=GREY)
    text(330, 190, invoice.number)
    text(LEFT, 240, "Date", fill=GREY)
    text(330, 240, invoice.date)
    pen.line((LEFT, 320, RIGHT, 320), INK, 3)
    y = 350
    for name, count, price in invoice.items:
        row(y, name, price)
        text(640, y, count)
        y += 60
    pen.line((LEFT, y + 20, RIGHT, y + 20), GREY, 2)
    row(y + 50, "Subtotal", invoice.subtotal)
    row(y + 105, "Tax 19 %", invoice.tax)
    row(y + 180, "TOTAL EUR", invoice.total, 44)
    text(LEFT, PAGE[1] - 110, "Payable within 14 days. Thank you!", 24, GREY)
    return page


def draw_notes():
    page = Image.new("RGB", PAGE, PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((LEFT, 80), "NOTES FOR THE MOVE", INK, ImageFont.load_default(48), anchor="la")
    y = 220
    for note in NOTES:
        for line in textwrap.wrap(note, 54):
            pen.text((LEFT, y), line, INK, ImageFont.load_default(30), anchor="la")
            y += 44
        y += 66
    return page


def photograph(page):
    """Returns the page as a photograph: tilted on a desk, lit from one side, with a cheap lens."""
    noise = np.random.default_rng(7)
    width, height = 1200, 1400
    corners = np.float32([(0, 0), (PAGE[0], 0), PAGE, (0, PAGE[1])])
    seen = np.float32([(150, 90), (1060, 160), (1130, 1290), (60, 1240)])
    skew = cv2.getPerspectiveTransform(corners, seen)
    photo = cv2.warpPerspective(
        np.asarray(page), skew, (width, height), flags=cv2.INTER_AREA, borderValue=(96, 74, 58)
    ).astype(np.float32)

    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    light = 1.0 - 0.38 * x - 0.22 * y**2
    shadow = 1.0 - 0.25 * np.exp(-(((x - 0.85) / 0.2) ** 2) - ((y - 0.9) / 0.25) ** 2)
    photo *= (light * shadow)[..., None]
    photo *= (1.03, 1.0, 0.9)
    photo = cv2.GaussianBlur(photo, (0, 0), 0.9) + noise.normal(0, 7, photo.shape)
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8))


def main(folder):
    draw(CLEAN).save(folder / "invoice.png")
    photograph(draw(PHOTOGRAPHED)).save(folder / "photo.jpg", quality=70)
    draw_notes().save(folder / "notes.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
