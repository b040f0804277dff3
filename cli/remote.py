"""Another Stepwise as a source of pictures, over its Gradio API: a Space, or any server.

gradio_client does the talking. No preview is fetched; the finished PNGs are, at the end.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from gradio_client import Client
from gradio_client.exceptions import AppError, ValidationError
from gradio_client.utils import QueueError, TooManyRequestsError
from huggingface_hub.errors import RepositoryNotFoundError

from cli.errors import ServerError, UsageError
from cli.sources import Progress, Row
from pipeline.errors import InvalidRequest, StepwiseError
from pipeline.events import LAST_PHASES

TIMEOUT = httpx.Timeout(60, connect=10)
"""Seconds without a word. A Stepwise says something every 5 while it draws (api.gradio.endpoints.AGAIN)."""
POLL = 0.05
"""Seconds between looks at what has come; gradio_client (2.7.2) looks as often itself."""
STOPPING = 30.0
"""Seconds for which a server is asked to stop; after that, it notices that we have gone."""
PNG = b"\x89PNG\r\n\x1a\n"
SPACES = "https://huggingface.co/spaces/"


class Remote:
    """The engine of another Stepwise."""

    def __init__(self, server: str) -> None:
        """
        Args:
            server: an address, or a Space's owner/name.
        """
        self.name = server
        server = server.removeprefix(SPACES).strip("/") if server.startswith(SPACES) else server
        space = re.fullmatch(r"[\w.-]+/[\w.-]+", server) is not None
        if not space and not re.match(r"https?://[^/]", server):
            raise UsageError(
                f"--server {server} is neither an address that starts with http:// or https:// nor a Space's "
                "owner/name."
            )
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        with self.explained():
            self.client = Client(
                server,
                # A token is for the Hub's machines: anyone else's would only be shown it.
                token=(os.environ.get("HF_TOKEN") or None) if space or is_space(server) else False,
                verbose=False,
                download_files=False,
                analytics_enabled=False,
                httpx_kwargs={"timeout": TIMEOUT},
            )

    def models(self) -> list[dict[str, Any]]:
        with self.explained():
            found = self.client.predict(api_name="/models")
            for model in found:
                Row.model_validate(model)
        return found

    def start(self, values: Mapping[str, Any]) -> RemoteDrawing:
        return RemoteDrawing(self, values)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what gradio_client, httpx and huggingface_hub raise into words."""
        try:
            yield
        except StepwiseError:
            raise
        except ValidationError as error:
            raise InvalidRequest(_problems(str(error))) from None
        except (AppError, QueueError, TooManyRequestsError) as error:
            raise ServerError(str(error)) from None
        except concurrent.futures.CancelledError as error:  # what gradio_client makes of a broken stream
            raise ServerError(
                f"{self.name} went away in the middle of the drawing: the connection broke or fell silent."
            ) from error
        except RepositoryNotFoundError as error:
            raise ServerError(f"There is no Space {self.name}, or HF_TOKEN may not see it.") from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise ServerError(
                f"{self.name} doesn't answer; gave up after {TIMEOUT.read:g} seconds."
            ) from error
        except (httpx.TransportError, OSError) as error:
            raise ServerError(f"{self.name} can't be reached: {error}") from error
        except Exception as error:
            raise self.strange(f"{type(error).__name__}: {error}") from error

    def strange(self, words: str) -> ServerError:
        """Of an answer that isn't a Stepwise's."""
        return ServerError(f"No Stepwise answers at {self.name} ({words}).")


class RemoteDrawing:
    """A drawing of another Stepwise. It ends with this process, at the latest when the server notices."""

    def __init__(self, remote: Remote, values: Mapping[str, Any]) -> None:
        self._remote, self._seen = remote, 0
        self._job = str(uuid.uuid4())
        with remote.explained():
            self._call = remote.client.submit(**values, job=self._job, api_name="/generate")

    def events(self) -> Iterator[tuple[dict[str, Any], tuple[bytes, ...]]]:
        # Not `for … in self._call`: gradio_client (2.7.2) would wait for ever once the server has gone.
        while True:
            ended = concurrent.futures.wait([self._call.future], timeout=POLL).done
            for output in self._call.outputs()[self._seen :]:
                self._seen += 1
                info, pictures = self._read(output)
                yield info, pictures
                if info["phase"] in LAST_PHASES:
                    return
            if ended:
                with self._remote.explained():
                    self._call.future.result()  # raises what went wrong
                raise self._remote.strange("the drawing ended without a result")

    def stop(self) -> None:
        # More than once: a job that has not arrived there yet is answered as unknown.
        deadline = time.monotonic() + STOPPING
        with contextlib.suppress(StepwiseError), self._remote.explained():
            while not self._call.future.done() and time.monotonic() < deadline:
                stop = self._remote.client.submit(self._job, api_name="/stop")
                stop.future.result(timeout=STOPPING)
                concurrent.futures.wait([self._call.future], timeout=4 * POLL)

    def _read(self, output: Any) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        """One yield of `/generate`, its pictures fetched if they are the finished ones."""
        with self._remote.explained():
            gallery, info = output
            at = Progress.model_validate(info)
            if at.phase != "finished":
                return info, ()
            if len(gallery) != at.images:
                raise self._remote.strange(f"{len(gallery)} pictures instead of {at.images}")
            return info, tuple(self._fetch(picture["image"]["path"]) for picture in gallery)

    def _fetch(self, path: str) -> bytes:
        """A file, from the server's own address whatever address it names."""
        client = self._remote.client
        url = f"{client.src_prefixed}file={quote(path)}"
        answer = httpx.get(url, headers=client.headers, cookies=client.cookies, timeout=TIMEOUT)
        picture = answer.raise_for_status().content
        if not picture.startswith(PNG):
            raise self._remote.strange("a finished picture is no PNG")
        return picture


def is_space(server: str) -> bool:
    """Whether this address is one of the Hub's own."""
    address = urlsplit(server)
    return address.scheme == "https" and (address.hostname or "").endswith(".hf.space")


def _problems(words: str) -> dict[str, str]:
    """gradio_client's list of refusals, a line `- parameter: words` each, by parameter."""
    found = re.findall(r"^- (\w+): (.*?)(?=\n- |\Z)", words, re.MULTILINE | re.DOTALL)
    return dict(found) or {"": words}
