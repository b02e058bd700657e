"""An MCP server that logs every JSON-RPC message that it gets, a line each: $PORT, $LOG."""

import json
import os

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("tools", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@server.tool()
def fail(why: str) -> str:
    """Fails."""
    raise ValueError(why)


class Logged:
    """Writes down what comes before the application sees it."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        body = b""

        async def read():
            nonlocal body
            message = await receive()
            if message["type"] == "http.request" and scope["method"] == "POST":
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                    line = {"text": body.decode(), "authorization": headers.get("authorization")}
                    with open(os.environ["LOG"], "a", encoding="utf-8") as log:
                        log.write(json.dumps(line) + "\n")
            return message

        await self.app(scope, read if scope["type"] == "http" else receive, send)


uvicorn.run(Logged(server.streamable_http_app()), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error")
