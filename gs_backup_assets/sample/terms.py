"""The studio's terms as a small PDF, which the sample keeps as a large object."""

from __future__ import annotations

_PARAGRAPHS = (
    "Lessons are booked for a fixed hour of the week and belong to the student until one of us gives notice.",
    "Please cancel at least 2 hours in advance to avoid charges.",
    "A lesson missed without notice is charged in full; a lesson the teacher misses is made up or credited.",
    "Invoices are sent on the first day of the month and are due within fourteen days.",
    "The studio lends no instruments over the summer, strings and picks are charged at cost.",
    "Recordings made in a lesson are for practice at home and are not to be published.",
)


def terms_pdf(pages: int = 24) -> bytes:
    """A valid PDF of `pages` pages, some 40 kB by default, the same bytes on every call."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(pages)), pages),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for page in range(pages):
        lines = [f"Guitar Strategies - terms, page {page + 1} of {pages}"]
        lines += [f"{page + 1}.{line + 1} {_PARAGRAPHS[(page + line) % len(_PARAGRAPHS)]}" for line in range(12)]
        text = "BT /F1 9 Tf 40 780 Td 22 TL\n" + "".join(f"({line}) Tj T*\n" for line in lines) + "ET\n"
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * page)
        )
        objects.append(b"<< /Length %d >>\nstream\n%sendstream" % (len(text), text.encode("ascii")))
    document = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(document))
        document += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(document))
    return document + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + trailer
