"""The least HTTP/1.1 that an OTLP exporter needs, so that what is measured beside it is not the server."""

import asyncio
from collections.abc import Awaitable, Callable

# From method, path and body to status, content type and content.
Answer = Callable[[str, str, bytes], Awaitable[tuple[int, bytes, bytes]]]


def run(answer: Answer, port: int = 0) -> None:
    """Serve on a port (0: a free one) of the loopback address, which is printed, until the process is ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status, kind, content = await answer(method, path, body)
                writer.write(
                    b"HTTP/1.1 %d -\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
                    % (status, kind, len(content), content)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())
