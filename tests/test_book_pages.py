"""What the built pages are made of: media in files, pictures with sizes."""

import base64

from PIL import Image

from tools.book_pages import as_files, with_sizes

CONTENT = bytes(range(256)) * 4
URI = f"data:video/mp4;base64,{base64.b64encode(CONTENT).decode()}"


def test_media_become_files_and_equal_ones_become_one(tmp_path):
    body = as_files(f'<video src="{URI}"></video><script>{{"src":"{URI}"}}</script>', tmp_path, "../_media/")
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".mp4"
    assert body == f'<video src="../_media/{path.name}"></video><script>{{"src":"../_media/{path.name}"}}</script>'


def test_small_icons_stay_in_the_page(tmp_path):
    body = '<img src="data:image/png;base64,AAAA">'
    assert as_files(body, tmp_path, "_media/") == body


def test_pictures_keep_their_place_and_load_late(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    body = with_sizes('<img alt="a" src="_images/b.png"><img src="x.png" width="9">', {"b.png": tmp_path / "a.png"})
    assert body == '<img loading="lazy" width="30" height="20" alt="a" src="_images/b.png"><img src="x.png" width="9">'
