"""What an agent does with an MCP server: $URL, $TOKEN, $MODE."""

import asyncio
import os

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main():
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(os.environ["URL"], http_client=http)
        async with Client(transport, mode=os.environ["MODE"]) as client:
            tools = await client.list_tools()
            print(sorted(tool.name for tool in tools.tools))
            result = await client.call_tool("add", {"a": 2, "b": 40})
            print(result.is_error, result.content[0].text)
            result = await client.call_tool("fail", {"why": "so"})
            print(result.is_error)


asyncio.run(main())
