"""Panels stay in the frame and never cover each other, whatever the frame and however many faces."""

import cv2
import numpy as np
import pytest

from fer_tf.faces import Faces
from fer_tf.inference.annotate import draw, place_panels
from fer_tf.labels import COLOURS, FER2013, FERPLUS

SIZES = [(116, 105), (88, 79), (88, 18), (60, 13)]  # what a 480 px frame gets
FRAMES = [(64, 64), (320, 240), (640, 480), (480, 853), (1920, 1080), (3840, 2160)]


def random_boxes(rng: np.random.Generator, n: int, frame: tuple[int, int]) -> np.ndarray:
    sides = rng.uniform(4, max(5, min(frame) / rng.choice([1.2, 4, 10])), n)
    corners = rng.uniform(-0.1, 1, (n, 2)) * frame
    boxes = np.hstack([corners, corners + sides[:, None]])
    return np.clip(boxes, 0, np.tile(frame, 2)).round().astype(int)


def shared(a, b) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_panels_are_inside_and_apart(frame):
    rng = np.random.default_rng(frame[0])
    for n in (1, 2, 4, 9, 30):
        for _ in range(4):
            boxes = random_boxes(rng, n, frame)
            panels = place_panels(boxes, frame, SIZES)
            assert len(panels) == n
            placed = [panel for panel in panels if panel]
            for k, (size, left, top, right, bottom) in enumerate(placed):
                assert (right - left, bottom - top) == SIZES[size]
                assert left >= 0 and top >= 0 and right <= frame[0] and bottom <= frame[1]
                assert not any(shared(placed[k][1:], other[1:]) for other in placed[:k])
            if frame[0] >= 64:
                assert placed  # even the smallest frame has room for one


def test_a_lone_face_gets_the_whole_panel_beside_it():
    for box in ([100, 100, 180, 180], [0, 0, 80, 80], [560, 400, 640, 480], [280, 0, 360, 480]):
        (panel,) = place_panels(np.array([box]), (640, 480), SIZES)
        assert panel.size == 0 and shared(panel[1:], box) == 0


def test_panels_hide_no_face_where_there_is_room():
    boxes = np.array([[100, 150, 160, 210], [240, 160, 300, 220], [380, 150, 440, 210], [520, 160, 580, 220]])
    panels = place_panels(boxes, (640, 480), SIZES)
    assert [panel.size for panel in panels] == [0, 0, 0, 0]
    assert not any(shared(panel[1:], box) for panel in panels for box in boxes)


def test_a_face_that_fills_the_frame_carries_its_panel():
    (panel,) = place_panels(np.array([[0, 0, 640, 480]]), (640, 480), SIZES)
    assert panel.size == 0 and panel.top > 240


def test_shrinks_before_it_gives_up():
    crowd = np.array([[x, y, x + 38, y + 38] for x in range(0, 640, 40) for y in range(0, 480, 40)])
    panels = place_panels(crowd, (640, 480), SIZES)
    assert {panel.size for panel in panels if panel} == {3}
    assert place_panels(np.array([[5, 5, 15, 15]]), (30, 30), SIZES) == [None]


def faces_in(image: np.ndarray, boxes, emotions=FER2013, label: str = "happy") -> Faces:
    logits = np.zeros((len(boxes), len(emotions)), np.float32)
    logits[:, emotions.index(label)] = 3
    xyxy = np.asarray(boxes, np.float32).reshape(-1, 4)
    score = np.ones(len(boxes), np.float32)
    return Faces(frame_index=0, time_s=0.0, image=image, xyxy=xyxy, score=score, logits=logits)


@pytest.mark.parametrize("label", FERPLUS)
@pytest.mark.parametrize("background", [0, 255], ids=["on black", "on white"])
def test_draws_box_label_and_bars_in_the_emotions_colour(label, background):
    image = np.full((480, 640, 3), background, np.uint8)
    boxes = [[200, 150, 300, 250]]
    drawn = draw(faces_in(image, boxes, FERPLUS, label), FERPLUS)
    assert (image == background).all() and drawn.shape == image.shape and drawn.dtype == np.uint8
    colour = [int(COLOURS[label][k : k + 2], 16) for k in (1, 3, 5)]
    inked = (np.abs(drawn.astype(int) - colour).max(axis=2) <= 3).astype(np.uint8)
    assert inked[200, 195:206].any()  # the box's left edge
    assert inked[155:175, 310:400].mean() > 0.5  # the label's ground
    assert (drawn[200, 250] == background).all()  # the face itself is left alone


@pytest.mark.parametrize("size", [(64, 64), (33, 600), (480, 640), (2160, 3840)], ids=str)
def test_draws_on_any_frame(size):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    boxes = random_boxes(rng, 12, size[::-1])
    drawn = draw(faces_in(image, np.vstack([boxes, [[0, 0, *size[::-1]]]])), FER2013)
    assert drawn.shape == image.shape and (drawn != image).any()


def test_text_stands_out_from_its_ground():
    """The label's letters differ from the colour below them by a contrast that reads, for every emotion."""
    for label in FERPLUS:
        drawn = draw(faces_in(np.full((480, 640, 3), 128, np.uint8), [[200, 150, 300, 250]], FERPLUS, label), FERPLUS)
        title = cv2.cvtColor(drawn[153:174, 308:380], cv2.COLOR_RGB2GRAY)
        assert int(title.max()) - int(title.min()) > 80, label


def test_needs_classified_faces_and_leaves_an_empty_frame_alone():
    image = np.full((60, 80, 3), 7, np.uint8)
    np.testing.assert_array_equal(draw(faces_in(image, []), FER2013), image)
    with pytest.raises(ValueError, match="no logits"):
        draw(faces_in(image, [[1, 1, 30, 30]]).with_(logits=None), FER2013)


def title(image: np.ndarray, colour: str) -> np.ndarray:
    """Which pixels of a frame have this label's colour."""
    code = [int(COLOURS[colour][k : k + 2], 16) for k in (1, 3, 5)]
    return np.abs(image.astype(int) - code).max(axis=2) <= 3


def test_shows_the_smoothed_probabilities_and_their_label_where_there_are_any():
    image, boxes = np.full((480, 640, 3), 128, np.uint8), [[200, 150, 300, 250]]
    raw = faces_in(image, boxes, label="happy")
    smoothed = np.array([[0.0, 0.0, 0.0, 0.02, 0.44, 0.54, 0.0]], np.float32)  # surprise, then sad, then happy
    sad = FER2013.index("sad")
    drawn = {
        "happy": draw(raw, FER2013),
        "surprise": draw(raw.with_(smoothed=smoothed), FER2013),
        "sad": draw(raw.with_(smoothed=smoothed, label=np.array([sad])), FER2013),
    }
    for label, picture in drawn.items():
        assert title(picture, label)[155:175, 310:400].mean() > 0.5, label
        assert title(picture, label)[200, 195:206].any()  # the box as well
    bars = {emotion: np.flatnonzero(title(drawn["sad"], emotion)[180:, 304:].sum(axis=1) > 25) for emotion in FER2013}
    assert bars["sad"].max() < bars["surprise"].min()  # the label's bar leads, though surprise is more probable
    assert not len(bars["happy"])  # but 2 %


def test_a_label_that_is_none_of_the_most_probable_is_still_on_top():
    image = np.full((480, 640, 3), 128, np.uint8)
    smoothed = np.array([[0.3, 0.3, 0.3, 0.05, 0.03, 0.01, 0.01]], np.float32)
    faces = faces_in(image, [[200, 150, 300, 250]]).with_(smoothed=smoothed, label=np.array([3]))
    assert title(draw(faces, FER2013), "happy")[155:175, 310:400].mean() > 0.5


@pytest.mark.parametrize(("n", "tracks", "marked"), [(2, [3, 12], True), (2, None, False), (1, [3], False)])
def test_tracks_are_numbered_where_there_are_several(n, tracks, marked):
    image, boxes = np.full((480, 640, 3), 128, np.uint8), [[60, 150, 160, 250], [350, 150, 450, 250]]
    faces = faces_in(image, boxes[:n])
    plain = draw(faces, FER2013)
    numbered = draw(faces.with_(track_id=None if tracks is None else np.array(tracks)), FER2013)
    changed = np.argwhere((plain != numbered).any(axis=2))
    assert bool(len(changed)) == marked
    if marked:  # in the titles, which stand right of the boxes, behind the labels, and nowhere else
        rows, columns = changed.T
        assert rows.min() > 150 and rows.max() < 176 and len(changed) < 150
        assert ((columns > 230) & (columns < 290) | (columns > 520) & (columns < 580)).all()
        assert (columns < 290).any() and (columns > 520).any()
