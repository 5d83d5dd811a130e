"""What a text names, and that nobody ever reads its password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.plan import Keep
from serve_app.streams.camera_spec import CameraListError, CameraSpec
from serve_app.streams.source_address import SourceKind, kind_of, name_of, without_secret

SECRETS = st.text(
    st.characters(codec="ascii", exclude_characters="@ '\"\\\n\r\t&;=?#%", categories=["L", "N", "P"]), min_size=6
)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("rtsp://user:secret@10.0.0.7/stream1", SourceKind.NETWORK, "10.0.0.7/stream1"),
        ("rtsp://user:se/cr@et@10.0.0.7:554/s", SourceKind.NETWORK, "10.0.0.7:554/s"),
        ("http://10.0.0.8/video", SourceKind.NETWORK, "http://10.0.0.8/video"),
        ("http://10.0.0.8/v?user=me&PWD=secret&x=1", SourceKind.NETWORK, "http://10.0.0.8/v?user=***&PWD=***&x=1"),
        ("RTSP://10.0.0.7/s", SourceKind.NETWORK, "RTSP://10.0.0.7/s"),
        ("0", SourceKind.WEBCAM, "webcam-0"),
        ("webcam:2", SourceKind.WEBCAM, "webcam-2"),
        ("/dev/video1", SourceKind.WEBCAM, "webcam-1"),
        ("line 1.mp4", SourceKind.VIDEO, "line 1"),
        ("a/photo.JPG", SourceKind.IMAGES, "photo"),
    ],
)
def test_a_text_names_a_source_and_a_camera(text, kind, name):
    """Addresses, webcams, images, videos."""
    assert (kind_of(text), name_of(text), CameraSpec(text).name) == (kind, name, name)


def test_a_file_of_a_number_is_a_file(tmp_path, monkeypatch):
    """And no webcam."""
    (tmp_path / "0").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert kind_of("0") is SourceKind.VIDEO


@given(SECRETS, SECRETS)
def test_no_password_is_ever_read(user, password):
    """In names, in what is shown of a camera, and in other people's messages."""
    address = f"rtsp://{user}:{password}@10.0.0.7/s?password={password}"
    spec = CameraSpec(address)
    message = without_secret(f"cannot open '{address}': refused")
    for said in (spec.name, repr(spec), message, without_secret(address)):
        assert password not in said
        assert user not in said.replace("user", "")
    assert "10.0.0.7/s" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": ""}, "got nothing"),
        ({"source": "x.avi", "fps": 5.0, "realtime": True}, "fps and realtime"),
        ({"source": "rtsp://h/x", "loop": True}, "loop: allowed for files only"),
        ({"source": "x.avi", "name": "a\nb"}, "printable letters"),
        ({"source": "x.avi", "name": "n" * 121}, "up to 120"),
    ],
)
def test_what_contradicts_itself_is_refused(options, words):
    """With the camera's name and what is allowed."""
    with pytest.raises(CameraListError, match=words):
        CameraSpec(**options)


@pytest.mark.parametrize(
    ("options", "keeps_latest", "most_fps"),
    [
        ({"source": "x.avi"}, False, None),
        ({"source": "x.avi", "realtime": True}, True, None),
        ({"source": "x.avi", "fps": 5.0}, True, None),
        ({"source": "x.avi", "fps": 5.0, "keep": Keep.ALL, "max_fps": 2.0}, False, 2.0),
        ({"source": "rtsp://h/x"}, True, None),
        ({"source": "rtsp://h/x", "fps": 5.0, "max_fps": 7.0}, True, 5.0),
        ({"source": "rtsp://h/x", "keep": Keep.ALL}, False, None),
    ],
)
def test_who_has_a_clock_of_its_own_keeps_the_latest_frame(options, keeps_latest, most_fps):
    """Unless told otherwise; `fps` caps a camera that nobody can play faster or slower."""
    spec = CameraSpec(**options)
    assert (spec.keeps_latest, spec.most_fps) == (keeps_latest, most_fps)
