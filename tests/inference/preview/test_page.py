"""The page of all cases, as text and in a browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from inference.labels import structures
from inference.preview import png
from inference.preview.page import HEAD, Row, html, row
from inference.preview.volume import script
from inference.scan import Grid

from .chromium import look

EVIL = "<img src=x onerror=alert(1)>&\"' {{rows}}"
NAMES = {1: "liver", 3: "spleen"}


class Page(HTMLParser):
    """Rows of cells as text, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = False  # a cell
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def text_of(rows: list[Row]) -> str:
    return b"".join(html(rows)).decode()


def record(**more: object) -> dict[str, object]:
    return {"status": "done", "labels": {"1": {"name": "liver", "ml": 1500.4}}, "doubts": {}, "warnings": []} | more


def test_every_case_is_a_row_with_its_volumes_and_its_doubts() -> None:
    doubts = {"spleen": {"doubt": "look", "why": "9 ml"}, "pancreas": {"doubt": "missing", "why": "not found"}}
    rows = [
        row("a", record(), None, None),
        row("b", record(doubts=doubts, warnings=["organs to look at twice: spleen", "thick slices"]), None, None),
        row("c", record(status="failed", error="c.nii is cut off", labels=None), None, None),
        row("d", record(labels={"14": {"name": "tumor", "ml": 0.1234}, "3": {"name": "spleen", "ml": 12}},
                        doubts={"liver": {"doubt": "cut", "why": "it goes on"}}), None, None),
    ]  # fmt: skip
    page = Page(text_of(rows))
    head, *body = page.rows
    assert head == ["picture", "case", "verdict", "remarks", "liver", "spleen", "tumour"]
    assert [cells[1:4] for cells in body] == [
        ["a", "nothing odd", ""],
        ["b", "to be looked at", "pancreas missing: not foundspleen look: 9 mlthick slices"],
        ["c", "failed", "c.nii is cut off"],
        ["d", "nothing odd", "liver cut: it goes on"],
    ]
    assert [cells[4:] for cells in body] == [["1,500", "", ""], ["1,500", "", ""], ["", "", ""], ["", "12", "0.12"]]


@pytest.mark.parametrize(
    "broken",
    [
        {"labels": {"x": {"name": "liver", "ml": 1}}},
        {"labels": {"1": {"name": "liver", "ml": "much"}}},
        {"doubts": {"liver": {"doubt": "?"}}},
    ],
)
def test_a_damaged_record_is_no_row(broken: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        row("a", record(**broken), None, None)


def test_names_are_text_wherever_they_stand() -> None:
    warnings = [f"{EVIL} is odd"]
    labels = {"1": {"name": EVIL, "ml": 1.0}}
    plain, evil = (
        Page(
            text_of(
                [row(name, record(warnings=[f"{name} is odd"], labels={"1": {"name": name, "ml": 1.0}}), b"", None)]
            )
        )
        for name in ("plain", EVIL)
    )
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in plain.tags]
    page = Page(text_of([row(EVIL, record(warnings=warnings, labels=labels), b"png", "x.preview/")]))
    assert page.rows[1][1] == EVIL and EVIL in page.rows[1][3] and page.rows[0][4] == EVIL
    assert "onerror" not in {name for _, attributes in page.tags for name in attributes}
    assert page.rows[1:] and len(page.rows) == 2


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    text = text_of([row("a", record(), b"png", "a.preview/")])
    assert text.encode().startswith(HEAD)
    page = Page(text)
    assert not [value for _, attributes in page.tags for name in ("src", "href") if (value := attributes.get(name)) and
                not value.startswith("data:")]  # fmt: skip
    (policy,) = [str(attributes["content"]) for _, attributes in page.tags if "http-equiv" in attributes]
    assert "default-src 'none'" in policy and "http" not in policy


def test_the_viewer_is_the_published_one_and_its_licence_is_on_the_page() -> None:
    browser = resources.files("inference.preview") / "browser"
    licence, packed = (browser / "NIIVUE-LICENSE.txt").read_text(), (browser / "niivue.js.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() in licence
    text = text_of([])
    assert base64.b64encode(packed).decode() in text and "Copyright (c) 2021, Niivue" in text


def test_a_person_with_a_keyboard_or_a_screen_reader_finds_everything() -> None:
    page = Page(text_of([row("a", record(), b"png", "a.preview/")]))
    tags = [tag for tag, _ in page.tags]
    assert "caption" in tags and "lang" in dict(page.tags)["html"]
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert all(attributes["scope"] in ("col", "row") for attributes in heads)
    assert [attributes["aria-sort"] for attributes in heads if "aria-sort" in attributes] == ["ascending"]
    assert all("alt" in attributes for tag, attributes in page.tags if tag == "img")
    assert all(attributes["type"] == "button" for tag, attributes in page.tags if tag == "button")
    text = text_of([])
    for control in re.findall(r"<(?:input|select)[^>]*>", text):
        before = text[: text.index(control)]
        assert before.rfind("<label") > before.rfind("</label>"), control  # each stands inside of its label


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(scheme: str) -> None:
    css = (Path(__file__).parents[3] / "inference" / "preview" / "browser" / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w+);", blocks[scheme == "dark"]))

    def luminance(text: str) -> float:
        digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))  # WCAG 2.2, relative luminance

    for back in ("back", "raised"):
        for front in ("text", "soft", "accent", "failed", "look", "good"):
            light, dark = sorted((luminance(colours[back]), luminance(colours[front])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (back, front)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page of 1,000 cases, of which one has a volume: half of it liver, and a slab of spleen."""
    out = tmp_path / "out"
    preview = out / "c 1#.preview"
    preview.mkdir(parents=True)
    labels = np.zeros((20, 24, 28), np.uint8)
    labels[:, :, :14] = 1
    labels[4:8, :, 20:] = 3
    hu = np.where(labels == 1, 100, 0).astype(np.int16)
    grid = Grid.of(labels.shape, (4.0, 2.0, 2.0), "LPS")
    (preview / "volume.js").write_bytes(script(hu, labels, grid, structures(NAMES), (-160, 240), True))
    small = png.encode(np.full((8, 24, 3), 90, np.uint8))
    (preview / "picture.png").write_bytes(small)
    rows = [row("c 1#", record(), small, "c%201%23.preview/"), row("c 2", record(), small, "gone.preview/")]
    rows += [
        row(f"case {number}", record(labels={"3": {"name": "spleen", "ml": float(number)}}), None, None)
        for number in range(2, 999)
    ]
    rows.append(row(EVIL, record(status="failed", error="cut off"), None, None))
    (out / "index.html").write_bytes(b"".join(html(rows)))
    return out


@pytest.mark.slow
def test_the_table_is_sorted_and_searched(folder: Path, tmp_path: Path) -> None:
    found = look(
        folder / "index.html",
        """
        const names = () => [...body.rows].filter((row) => !row.hidden).map((row) => row.cells[1].textContent);
        const click = (at) => heads[at].querySelector("button").click();
        const sorts = () => heads.map((head) => head.getAttribute("aria-sort"));
        const answer = [names().length, sorts()];
        click(5); answer.push(names().slice(0, 2), sorts());
        click(5); answer.push(names().slice(0, 2), sorts());
        click(2); answer.push(names()[0]);
        one("#find").value = "CASE 19"; one("#find").dispatchEvent(new Event("input"));
        answer.push(names().length, one("#shown").textContent);
        one("#find").value = ""; one("#only").value = "failed"; one("#only").dispatchEvent(new Event("change"));
        answer.push(names(), document.images.length);
        return answer;
        """,
        tmp_path / "chromium",
    )
    none = [None] * 6
    assert found == [
        1000, [None, "ascending", *none[2:]],
        ["case 998", "case 997"], [*none[:5], "descending"],
        ["case 2", "case 3"], [*none[:5], "ascending"],
        EVIL,
        11, "11 shown",
        [EVIL], 3,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_case_opens_in_the_viewer(folder: Path, tmp_path: Path) -> None:
    found = look(
        folder / "index.html",
        """
        const wait = async (done) => { while (!done()) await new Promise((next) => setTimeout(next, 50)); };
        const pixels = () => {
          viewer.drawScene();
          const { gl } = viewer, all = new Uint8Array(4 * gl.drawingBufferWidth * gl.drawingBufferHeight);
          gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA, gl.UNSIGNED_BYTE, all);
          let red = 0, violet = 0;
          for (let at = 0; at < all.length; at += 4) {
            red += all[at] > all[at + 2] + 40;
            violet += all[at + 2] > all[at + 1] + 40;
          }
          return [red, violet];
        };
        const opened = [...document.querySelectorAll(".open")];
        opened[0].focus(); opened[0].click();
        await wait(() => one("#note").textContent.includes("right button"));
        const answer = { title: one("#title").textContent, inside: dialog.contains(document.activeElement) };
        answer.alt = one("#picture").alt;
        await wait(() => one("#picture").complete);
        answer.picture = one("#picture").naturalWidth;
        one("#planes").value = "1"; one("#planes").dispatchEvent(new Event("change"));
        document.querySelectorAll("#labels button")[1].click();
        answer.where = one("#where").textContent;
        answer.counts = [1, 3].map((value) => viewer.volumes[1].img.filter((one) => one === value).length);
        answer.both = pixels();
        document.querySelector("#labels input").click();
        answer.spleen = pixels();
        one("#opacity").value = 0; one("#opacity").dispatchEvent(new Event("input"));
        answer.neither = pixels();
        one("#preset").value = "-30 150"; one("#preset").dispatchEvent(new Event("change"));
        answer.window = [viewer.volumes[0].cal_min, viewer.volumes[0].cal_max];
        one("#next").click();
        await wait(() => !one("#choose").hidden);
        answer.gone = [one("#title").textContent, one("#note").textContent];
        answer.gone.push(one("#viewer").hidden, one("#next").disabled);
        const chosen = new DataTransfer(), text = JSON.stringify(await load("c%201%23.preview/volume.js"));
        chosen.items.add(new File([`viscera(${text})\\n`], "volume.js"));
        one("#choose input").files = chosen.files;
        one("#choose input").dispatchEvent(new Event("change"));
        await wait(() => one("#note").textContent.includes("right button"));
        answer.chosen = [one("#viewer").hidden, one("#choose").hidden];
        one("#close").click();
        await wait(() => current === null);
        answer.back = document.activeElement === opened[1];
        return answer;
        """,
        tmp_path / "chromium",
    )
    assert found["title"] == "c 1#" and found["inside"] and found["picture"] == 24
    assert found["alt"] == "Three planes through the organs of c 1#"
    assert found["counts"] == [20 * 24 * 14, 4 * 24 * 8]
    assert re.fullmatch(r"L 4\d, P \d+, S (16|20|24) mm: 0, spleen", found["where"])
    (red, violet), (no_red, same_violet) = found["both"], found["spleen"]
    assert red > 20_000 and violet > 1_000 and no_red == 0 and same_violet == pytest.approx(violet, rel=0.2)
    assert found["neither"] == [0, 0] and found["window"] == [-30, 150]
    assert found["gone"] == ["c 2", "gone.preview/volume.js is not beside this page.", True, True] and found["back"]
    assert found["chosen"] == [False, True]
