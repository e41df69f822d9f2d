"""Load for `fer-tf serve`: every user sends a picture of its own and checks that each answer belongs to it.

.venv/bin/pip install locust
.venv/bin/fer-tf serve & .venv/bin/locust -f benchmarks/locustfile.py --headless -u 32 -r 32 -t 30s --host http://127.0.0.1:8000
"""

import io
import itertools

from locust import FastHttpUser, events, task
from PIL import Image
from skimage.data import astronaut

PORTRAIT = Image.fromarray(astronaut())
numbers = itertools.count()


class Client(FastHttpUser):
    """Asks again as soon as it is answered."""

    def on_start(self) -> None:
        """Cut a picture of a size that no other user has; the first answer is what all later ones must be."""
        side = 256 + next(numbers)
        file = io.BytesIO()
        PORTRAIT.crop((96, 0, 96 + side, 256)).save(file, "JPEG", quality=90)
        self.size, self.data, self.first = {"width": side, "height": 256}, file.getvalue(), None

    @task
    def detect(self) -> None:
        """Send it and compare."""
        files = {"file": ("face.jpg", self.data, "image/jpeg")}
        with self.client.post("/v1/detect", files=files, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            told = answer.json()
            self.first = self.first or told["faces"]
            if told["image"] != self.size or not told["faces"] or told["faces"] != self.first:
                answer.failure("the answer of another picture")


@events.quitting.add_listener
def _exit_code(environment, **_) -> None:
    environment.process_exit_code = bool(
        environment.stats.total.num_failures or not environment.stats.total.num_requests
    )
