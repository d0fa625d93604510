"""Steady traffic to one Predictor of a stand, for as long as a `with` lasts."""

import threading
import time

import grpc

from tests.support.stand import Stand, digit, mnist_request, stub


class Traffic:
    """50 requests a second to a Predictor, one connection, in order; every answer and error."""

    def __init__(self, stand: Stand, name: str) -> None:
        self.answers: list[tuple[str, int]] = []
        self.errors: list[grpc.RpcError] = []
        self._name = name
        self._channel = stand.channel()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.pause()
        self._channel.close()

    def pause(self) -> None:
        self._stop.set()
        self._thread.join()

    def run_for(self, seconds: float) -> None:
        count = len(self.answers) + len(self.errors) + int(50 * seconds)
        while len(self.answers) + len(self.errors) < count:
            time.sleep(0.02)

    def _run(self) -> None:
        call = stub(self._channel).ModelInfer
        while not self._stop.wait(1 / 50):
            try:
                answer = call(mnist_request(self._name), timeout=60)
            except grpc.RpcError as error:
                self.errors.append(error)
            else:
                self.answers.append((answer.model_name, digit(answer)))
